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
  for (const select of document.querySelectorAll("select[data-submits]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }
})();
