// Keeps the pages that were seen last, and shows them while there is no connection. Only what a page's answer names a
// reader for is kept, and only of one reader: whoever signs in or out empties what the one before has seen.
"use strict";
const MOST_PAGES = 30;
const MOST_AGE_MS = 7 * 24 * 3600 * 1000;
const CHANGES_READER = /^(\/[a-z]{2,3})?\/sign-(in|up|out)$/;
const PAGES = "pages-";
const STATIC = `static-${new URL(self.location).searchParams.get("v")}`;
const OFFLINE = "/offline";
const AS_IT_STANDS = { ignoreVary: true };
let turn = 0; // goes up when pages are emptied: an answer that was asked for before is not kept any more

self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));
self.addEventListener("activate", (event) => event.waitUntil((async () => {
  const former = (await caches.keys()).filter((name) => name.startsWith("static-") && name !== STATIC);
  for (const name of former.slice(0, -1)) await caches.delete(name); // kept pages still want the last one
  await self.clients.claim();
})()));

// The page that brought this worker was loaded without it.
self.addEventListener("message", (event) => {
  const address = new URL(event.data.keep);
  if (address.origin === self.location.origin) event.waitUntil(fetchAndKeep(new Request(address)).catch(() => {}));
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const address = new URL(request.url);
  if (address.origin !== self.location.origin) return;
  if (request.method !== "GET") {
    if (CHANGES_READER.test(address.pathname)) event.waitUntil(empty());
    return;
  }
  if (request.mode === "navigate") event.respondWith(page(event));
  else if (address.pathname.startsWith("/static/")) event.respondWith(file(request));
});

async function page(event) {
  const asked = turn;
  try {
    const answer = await fetch(event.request);
    event.waitUntil(keep(event.request, answer.clone(), asked));
    return answer;
  } catch (failure) {
    const kept = await find(event.request);
    if (kept) return kept;
    throw failure;
  }
}

async function fetchAndKeep(request) {
  const asked = turn;
  await keep(request, await fetch(request), asked);
}

async function empty(except = "") {
  const others = (await caches.keys()).filter((name) => name.startsWith(PAGES) && name !== except);
  const any = others.length > 0 || !except;
  if (any) turn += 1;
  for (const name of others) await caches.delete(name);
  return any;
}

async function keep(request, answer, asked) {
  const reader = answer.headers.get("X-Haat-Reader");
  if (!reader || asked !== turn) return;
  const name = PAGES + reader;
  if (await empty(name)) asked += 1; // it is this very answer that says so
  if (!answer.ok || answer.redirected) return;
  const cache = await caches.open(name);
  const address = addressOf(request);
  const spoken = answer.headers.get("Content-Language");
  const fallback = await cache.match(OFFLINE, AS_IT_STANDS);
  if (fallback?.headers.get("Content-Language") !== spoken) await cache.add(OFFLINE).catch(() => {});
  await cache.delete(address, AS_IT_STANDS); // the newest stands last
  await cache.put(address, answer);
  if (asked !== turn) return void await caches.delete(name); // emptied meanwhile, and opened again by us
  const pages = (await cache.keys()).filter((one) => new URL(one.url).pathname !== OFFLINE);
  for (const old of pages.slice(0, -MOST_PAGES)) await cache.delete(old, AS_IT_STANDS);
}

async function find(request) {
  for (const name of await caches.keys()) {
    if (!name.startsWith(PAGES)) continue;
    const cache = await caches.open(name);
    const kept = await cache.match(addressOf(request), AS_IT_STANDS);
    if (kept && Date.now() - Date.parse(kept.headers.get("Date")) < MOST_AGE_MS) return dated(kept);
    return cache.match(OFFLINE, AS_IT_STANDS);
  }
}

// What a form has done is told once.
function addressOf(request) {
  const address = new URL(request.url);
  address.searchParams.delete("done");
  address.hash = "";
  return address.href;
}

// The page itself says what it is: the body is told since when.
async function dated(kept) {
  const at = new Date(kept.headers.get("Date")).toISOString();
  const text = (await kept.text()).replace("<body ", `<body data-kept-at="${at}" `);
  return new Response(text, { status: kept.status, headers: kept.headers });
}

async function file(request) {
  const kept = await caches.match(request, AS_IT_STANDS);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.ok) await (await caches.open(STATIC)).put(request, answer.clone());
  return answer;
}
