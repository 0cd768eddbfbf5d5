// Which theme does this browser want? Runs before the first paint; the switch goes auto → light → dark.
(() => {
  "use strict";
  const choices = ["auto", "light", "dark"];
  const root = document.documentElement;
  const chosen = () => (choices.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");

  const show = () => {
    if (chosen() === "auto") root.removeAttribute("data-theme");
    else root.dataset.theme = chosen();
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      button.querySelector("[data-theme-name]").textContent = chosen();
    }
  };

  show();
  document.addEventListener("DOMContentLoaded", show);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-switch]")) return;
    localStorage.setItem("theme", choices[(choices.indexOf(chosen()) + 1) % choices.length]);
    show();
    document.dispatchEvent(new CustomEvent("davy:theme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.dispatchEvent(new CustomEvent("davy:theme"));
  });
})();
