// The description of the API, shown by Swagger UI or Redoc, whichever the page has loaded. A server with keys is asked with one.

async function description() {
  for (let key = ""; ; ) {
    const answer = await fetch("openapi.json", key ? { headers: { authorization: `Bearer ${key}` } } : {});
    if (answer.ok) return [await answer.json(), key];
    key = answer.status === 401 ? prompt("This server needs an API key:") : null;
    if (!key) throw new Error(`the description cannot be read (status ${answer.status})`);
  }
}

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
