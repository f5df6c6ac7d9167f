// The description of the API, shown by Swagger UI or Redoc, whichever the page has loaded. A server with keys is asked with one.

async function description() {
  for (let key = ""; ; ) {
    const answer = await fetch("openapi.json", key ? { headers: { authorization: `Bearer ${key}` } } : {});
    if (answer.ok) return [await answer.json(), key];
    key = answer.status === 401 ? prompt("This server needs an API key:") : null;
    if (!key) throw new Error(`the description cannot be read (status ${answer.status})`);
  }
}

// Redoc's attribution has a logo of another server, which is not asked: to Redoc it is as if that did not answer.
const image = HTMLImageElement.prototype;
const source = Object.getOwnPropertyDescriptor(image, "src");
const { setAttribute } = Element.prototype;

function ours(element, address) {
  const { origin, protocol } = new URL(address, location);
  if (origin === location.origin || ["data:", "blob:"].includes(protocol)) return true;
  setTimeout(() => element.dispatchEvent(new Event("error")));
  return false;
}

Object.defineProperty(image, "src", {
  ...source,
  set(address) {
    if (ours(this, address)) source.set.call(this, address);
  },
});
image.setAttribute = function (name, value) {
  if (name !== "src" || ours(this, value)) setAttribute.call(this, name, value);
};

const place = document.getElementById("reference");
description().then(
  ([spec, key]) => {
    if (window.Redoc) {
      Redoc.init(spec, { disableSearch: true }, place); // its search would need a worker
    } else {
      const page = SwaggerUIBundle({ spec, domNode: place, deepLinking: true });
      if (key) page.preauthorizeApiKey("key", key);
    }
  },
  (error) => {
    place.textContent = error.message;
  },
);
