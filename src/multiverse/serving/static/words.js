// Numbers in words.

/** Seconds with as many digits as one can use. */
export function seconds(value) {
  if (value < 100) return `${value.toFixed(2)} s`;
  const minutes = Math.floor(value / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(value % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function number(value) {
  return value.toLocaleString("en-GB");
}

export function times(value) {
  return `${value.toFixed(2)}×`;
}

export function parallelism({ total, critical_path }) {
  return critical_path ? total / critical_path : 1;
}

/** Forwards on the longest chain; files of earlier versions count its tokens alone. */
export function steps({ critical_path, steps }) {
  return number(steps ?? critical_path);
}

export const NAMES = { parallel: "Parallel", sequential: "Sequential", document: "Document", "as-is": "As asked" };
