// How does an annotator work without a mouse? A key presses the button that carries it (data-key).
(() => {
  "use strict";
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    const switchBox = document.querySelector("[data-keys-off]");
    if (switchBox && switchBox.checked) return;
    const button = document.querySelector(`button[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!button) return;
    event.preventDefault();
    button.click();
  });

  // An image that its source did not send is said in words.
  document.addEventListener("DOMContentLoaded", () => {
    const image = document.querySelector("[data-image]");
    if (!image) return;
    const say = () => {
      image.hidden = true;
      document.querySelector("[data-image-missing]").hidden = false;
    };
    image.addEventListener("error", say);
    if (image.complete && !image.naturalWidth) say();
  });
})();
