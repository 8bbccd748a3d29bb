// Small comforts; every page works without them.
(() => {
  "use strict";
  const words = document.body.dataset; // the page knows the language
  const say = document.createElement("span");
  say.className = "quiet";
  say.setAttribute("role", "status");
  document.body.append(say);

  const addCopyButtons = (root) => {
    for (const source of root.querySelectorAll("[data-copy]:not([data-copy='ready'])")) {
      source.dataset.copy = "ready";
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = words.sayCopy;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(source.textContent.trim());
        button.textContent = words.sayCopied;
        say.textContent = words.sayCopied;
        setTimeout(() => { button.textContent = words.sayCopy; say.textContent = ""; }, 1500);
      });
      (source.closest("pre") ?? source).after(button);
    }
  };

  if (navigator.clipboard) addCopyButtons(document);
  document.addEventListener("htmx:load", (event) => { if (navigator.clipboard) addCopyButtons(event.target); });

  // Live calls: rows come ready from the server. Whoever reads stops them; the page's link loads them again.
  const feed = document.querySelector("[data-feed]");
  const stop = document.querySelector("[data-feed-stop]");
  if (feed && stop && window.EventSource) {
    const source = new EventSource(feed.dataset.feed);
    const told = document.querySelector("[data-feed-state]");
    source.addEventListener("open", () => { told.textContent = words.sayOpen; });
    source.addEventListener("error", () => { told.textContent = words.sayLost; });
    source.addEventListener("call", (event) => {
      feed.insertAdjacentHTML("afterbegin", event.data);
      feed.closest("table").hidden = false;
      document.querySelector("[data-feed-empty]")?.remove();
      while (feed.rows.length > Number(feed.dataset.most)) feed.deleteRow(-1);
    });
    stop.hidden = false;
    stop.addEventListener("click", () => {
      source.close();
      stop.hidden = true;
      told.textContent = words.sayStopped;
    });
  }
  // A chart that is wider than its place shows the newest end of it.
  for (const plot of document.querySelectorAll(".chart .plot")) plot.scrollLeft = plot.scrollWidth;

  // Pages that were seen stay readable without a connection; see worker.js.
  if (navigator.serviceWorker) {
    const alone = !navigator.serviceWorker.controller;
    navigator.serviceWorker.register(words.worker).catch(() => {}); // a browser may forbid it
    if (alone) navigator.serviceWorker.ready.then(({ active }) => active.postMessage({ keep: location.href }));
  }
  if (words.keptAt) {
    const note = document.createElement("p");
    note.className = "note";
    note.setAttribute("role", "status");
    const time = new Date(words.keptAt).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
    note.textContent = words.sayKept.replace("{time}", time);
    document.querySelector("#matter > .wide").prepend(note);
  }
  const shelf = document.querySelector("[data-kept]");
  if (shelf && window.caches) (async () => {
    for (const name of await caches.keys()) {
      if (!name.startsWith("pages-")) continue;
      const cache = await caches.open(name);
      for (const request of (await cache.keys()).reverse()) {
        const address = new URL(request.url);
        if (address.pathname === "/offline") continue;
        const kept = await cache.match(request, { ignoreVary: true });
        const link = document.createElement("a");
        link.href = address.href;
        link.textContent = new DOMParser().parseFromString(await kept.text(), "text/html").title;
        const item = document.createElement("li");
        item.append(link);
        shelf.append(item);
        shelf.parentElement.hidden = false;
      }
    }
  })();

  for (const select of document.querySelectorAll("select[data-submits]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }
})();
