// Buttons that put a text of the page into the clipboard.
(() => {
  'use strict';
  for (const button of document.querySelectorAll('button[data-copies]')) {
    button.hidden = false;
    button.addEventListener('click', async () => {
      const source = document.getElementById(button.dataset.copies);
      const selection = window.getSelection();
      selection.selectAllChildren(source);
      try {
        await navigator.clipboard.writeText(source.innerText.trim());
        button.textContent = 'Copied';
      } catch {
        button.textContent = 'Selected: press Ctrl+C';
      }
    });
  }
})();
