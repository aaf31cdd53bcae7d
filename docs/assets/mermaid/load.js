// The theme loads Mermaid from a CDN unless there is a global `mermaid`. This one loads
// the copy beside this file when the first diagram is drawn, so that pages without a
// diagram do not pay for it and no other host is contacted.
(() => {
  const source = new URL("mermaid.tiny.js", document.currentScript.src);
  let options;
  let loaded;

  function load() {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = () => {
        window.mermaid.initialize(options); // the real one, which replaced ours
        resolve(window.mermaid);
      };
      script.onerror = () => reject(new Error(`cannot load ${source}`));
      document.head.append(script);
    });
  }

  window.mermaid = {
    initialize(given) {
      options = given;
    },
    async render(...description) {
      loaded ??= load();
      return (await loaded).render(...description);
    },
  };
})();
