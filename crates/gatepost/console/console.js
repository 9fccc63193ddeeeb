// Gatepost's console works without this; with it, numbers and the log follow what happens.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const kept = localStorage.getItem("theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  document.querySelector(".theme")?.addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });
  const menu = document.querySelector(".menu");
  menu?.addEventListener("click", () => {
    const open = document.getElementById("nav").classList.toggle("open");
    menu.setAttribute("aria-expanded", String(open));
  });
  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });
  const live = document.querySelector("[data-live]");
  if (live) {
    new EventSource(live.dataset.live).addEventListener("live", (event) => {
      const { values, paths } = JSON.parse(event.data);
      for (const [id, value] of Object.entries(values)) {
        for (const at of document.querySelectorAll(`[data-value="${id}"]`)) at.textContent = value;
      }
      for (const [id, path] of Object.entries(paths)) document.querySelector(`[data-path="${id}"]`)?.setAttribute("d", path);
    });
  }
  const log = document.querySelector("[data-follow]");
  if (log) {
    log.scrollTop = log.scrollHeight;
    const source = new EventSource(log.dataset.follow);
    const following = document.querySelector("[data-following]");
    source.addEventListener("open", () => { following.hidden = false; });
    source.addEventListener("error", () => { following.hidden = true; });
    source.addEventListener("record", (event) => {
      const { level, text } = JSON.parse(event.data);
      const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      const item = document.createElement("li");
      item.className = level;
      item.textContent = text;
      log.append(item);
      while (log.children.length > 1000) log.firstElementChild.remove();
      if (isAtEnd) log.scrollTop = log.scrollHeight;
    });
  }
})();
