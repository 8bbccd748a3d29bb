// Small comforts; every page works without them.
(() => {
  "use strict";
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
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(source.textContent.trim());
        button.textContent = "Copied";
        say.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; say.textContent = ""; }, 1500);
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
    source.addEventListener("open", () => { told.textContent = "New calls appear by themselves."; });
    source.addEventListener("error", () => { told.textContent = "The connection is lost; it is tried again."; });
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
      told.textContent = "Stopped. Load the page again to go on.";
    });
  }
  // A chart that is wider than its place shows the newest end of it.
  for (const plot of document.querySelectorAll(".chart .plot")) plot.scrollLeft = plot.scrollWidth;

  for (const select of document.querySelectorAll("select[data-submits]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }
})();
