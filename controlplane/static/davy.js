// Small things on every page: copy buttons.
(() => {
  "use strict";
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = button.parentElement.querySelector("pre");
    const label = button.querySelector("[data-copy-label]");
    try {
      await navigator.clipboard.writeText(text.textContent.trim());
      label.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text); // no clipboard over plain http: select it for the keyboard
      label.textContent = "Selected";
    }
    setTimeout(() => (label.textContent = "Copy"), 2000);
  });
})();
