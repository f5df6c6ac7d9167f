const byId = (id) => document.getElementById(id);

// What a page holds is put in as text, never as markup.
function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content.filter((item) => item !== null && item !== undefined && item !== ""));
  return element;
}

function addOptions(select, names) {
  for (const name of names) select.append(Array.isArray(name) ? new Option(...name) : new Option(name, name));
  select.hidden = !names.length;
}

function wordsOf(text) {
  return text.toLowerCase().split(/\s+/).filter(Boolean);
}

// ---- documents that fork

function body(items) {
  return items.map((item) => typeof item === "string" ? make("div", "text", item.trim()) : block(item));
}

function badge(part) {
  return part.kept ? make("span", "badge", "kept as refilled") : null;
}

function block(item) {
  const lanes = item.paths.map((path, index) => {
    const goal = make("div", "goal", `${path.label}  ${path.outline} `, badge(path));
    const lane = make("div", "lane", goal, ...body(path.body));
    lane.style.setProperty("--lane", `var(--lane-${index % 6})`);
    return lane;
  });
  const join = item.conclusion.trim() ? make("div", "join text", make("i", "", "joined  "), item.conclusion.trim()) : null;
  return make("div", "block", make("div", "head", `block ${item.name}: ${lanes.length} ${lanes.length === 1 ? "path" : "paths"} side by side `, badge(item)), make("div", "lanes", ...lanes), join);
}

function drawn(tree) {
  const answer = tree.answer.trim() ? make("div", "answer text", tree.answer.trim()) : null;
  return [...body(tree.thinking), answer].filter(Boolean);
}

// ---- a table of rows, sorted by a column, 50 at a time, and the row that is open, over the whole window

// rows: each with a `number`. columns: name, title and class of each. cell(row, name): text or element. accepted(): makes the
// function that says whether a row is wanted; it is asked again when anything in .filters changes. name(row): in the address.
// title(row), inside(row): what an open row shows. found(rows): told which rows are left.
function showRows({ rows, columns, cell, accepted, name, title, inside, found = () => {} }) {
  const PAGE = 50, head = byId("rows").tHead.rows[0], dialog = byId("opened");
  const state = { sort: "number", down: false, page: 0, found: rows, open: -1 };
  const missing = (value) => value === undefined || value === null || value === "";
  const close = () => dialog.close();

  function find() {
    state.found = rows.filter(accepted());
    state.found.sort((a, b) => {
      const [x, y] = [a[state.sort], b[state.sort]];
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a.number - b.number;
      const order = typeof x === "string" ? x.localeCompare(y) : x - y;
      return (state.down ? -order : order) || a.number - b.number;
    });
    state.page = 0;
    draw();
    found(state.found);
  }

  function draw() {
    const from = state.page * PAGE, some = state.found.slice(from, from + PAGE);
    head.replaceChildren(...columns.map(([key, text, className]) => {
      const sorted = state.sort === key, button = make("button", "", text + (sorted ? (state.down ? " ↓" : " ↑") : ""));
      button.addEventListener("click", () => { state.down = sorted && !state.down; state.sort = key; find(); });
      const header = make("th", className, button);
      if (sorted) header.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      return header;
    }));
    byId("rows").tBodies[0].replaceChildren(...some.map((row, index) => {
      const line = make("tr", "", ...columns.map(([key, , className]) => make("td", className, cell(row, key))));
      line.tabIndex = 0;
      line.addEventListener("click", () => open(from + index));
      line.addEventListener("keydown", (event) => {
        if (event.key === "Enter") {
          event.preventDefault(); // else it also presses the button of the dialog that has the focus then
          open(from + index);
        }
        const beside = { ArrowDown: line.nextElementSibling, ArrowUp: line.previousElementSibling }[event.key];
        if (beside) { event.preventDefault(); beside.focus(); }
      });
      return line;
    }));
    byId("place").textContent = state.found.length
      ? `${(from + 1).toLocaleString()} to ${(from + some.length).toLocaleString()} of ${state.found.length.toLocaleString()}` : "no row";
    byId("before").disabled = state.page === 0;
    byId("after").disabled = from + PAGE >= state.found.length;
  }

  function open(index) {
    const row = state.found[index];
    if (!row) return;
    state.open = index;
    byId("title").replaceChildren(...title(row));
    byId("previous").disabled = index === 0;
    byId("next").disabled = index === state.found.length - 1;
    byId("inside").replaceChildren(...inside(row));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    history.replaceState(null, "", `#${encodeURIComponent(name(row))}`);
  }

  for (const input of document.querySelectorAll(".filters input, .filters select")) input.addEventListener("input", find);
  byId("before").addEventListener("click", () => { state.page -= 1; draw(); });
  byId("after").addEventListener("click", () => { state.page += 1; draw(); });
  byId("previous").addEventListener("click", () => open(state.open - 1));
  byId("next").addEventListener("click", () => open(state.open + 1));
  byId("close").addEventListener("click", close);
  dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (dialog.open && event.key === "ArrowLeft") open(state.open - 1);
    if (dialog.open && event.key === "ArrowRight") open(state.open + 1);
    if (!dialog.open && event.key === "/") { event.preventDefault(); byId("search").focus(); }
  });
  find();
  const wanted = decodeURIComponent(location.hash.slice(1));
  const start = wanted ? state.found.findIndex((row) => name(row) === wanted) : -1;
  if (start >= 0) open(start);
  return find;
}
