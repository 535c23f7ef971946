// The colour scheme is set before the first paint, so that nothing flashes: the system's, or the one that was chosen.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("vllama-theme");
  } catch {
    // storage is switched off: the system's scheme it is
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
