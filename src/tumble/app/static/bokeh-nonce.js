"use strict";
// The page's policy takes style elements that carry its nonce; Bokeh makes its own without one.
(() => {
  const nonce = document.querySelector('meta[name="style-nonce"]').content;
  const create = document.createElement.bind(document);
  document.createElement = (name, options) => {
    const element = create(name, options);
    if (name === "style") element.nonce = nonce;
    return element;
  };
})();
