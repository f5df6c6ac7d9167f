// Conversations in the browser's own database. They stay on this device; the server keeps none.

const NAME = "multiverse";
const STORES = ["chats", "titles"]; // whole conversations, and what the list of them shows
const MOST = 300; // conversations; the oldest make room

let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name, { keyPath: "id" }));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

/** Do this with both stores, and wait until it is done as a whole. */
async function transact(mode, act) {
  const transaction = (await database()).transaction(STORES, mode);
  const request = act(...STORES.map((name) => transaction.objectStore(name)));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

/** A conversation; undefined if there is none of this id. */
export async function load(id) {
  return transact("readonly", (chats) => chats.get(id));
}

/** @param {string} words what the conversation can be found by */
export async function store(conversation, words) {
  const { id, title, updated } = conversation;
  await transact("readwrite", (chats, titles) => {
    chats.put(conversation);
    titles.put({ id, title, updated, words });
  });
}

export async function forget(...ids) {
  await transact("readwrite", (chats, titles) => {
    for (const id of ids) {
      chats.delete(id);
      titles.delete(id);
    }
  });
}

/** The titles of all conversations, the latest first; what is beyond the most that are kept goes. */
export async function titles() {
  const found = (await transact("readonly", (_, all) => all.getAll())).sort((a, b) => b.updated - a.updated);
  if (found.length > MOST) await forget(...found.slice(MOST).map(({ id }) => id));
  return found.slice(0, MOST);
}
