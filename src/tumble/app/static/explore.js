"use strict";
// Shared by the views of Explore: the state lies in the address, and exports are of what is shown.
window.tumbleExplore = (() => {
  const query = () => new URLSearchParams(location.search);

  function refresh() {
    document.querySelectorAll(".exports a").forEach((link) => { link.search = location.search; });
  }

  // Puts values into the address without loading the page; an empty one is taken out.
  function remember(values) {
    const now = query();
    for (const [name, value] of Object.entries(values)) {
      if (value === "" || value === null) now.delete(name);
      else now.set(name, value);
    }
    const text = now.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
    refresh();
  }

  const form = document.getElementById("view");
  if (form) {
    // What the form has no control for stays (keep), but for what some controls make senseless (reset, drop).
    const words = (name) => (form.dataset[name] ?? "").split(" ").filter(Boolean);
    form.addEventListener("change", (event) => {
      if (!form.reportValidity()) return;
      const dropped = words("reset").includes(event.target.name) ? words("drop") : [];
      const next = new URLSearchParams();
      for (const [name, value] of new FormData(form)) if (value) next.set(name, value);
      for (const name of words("keep")) if (query().has(name) && !dropped.includes(name)) next.set(name, query().get(name));
      location.search = next;
    });
  }

  // Facts of one particle, asked for once.
  const known = new Map();
  async function particle(id) {
    if (!known.has(id)) {
      const model = query().get("model");
      const more = model ? `&model=${encodeURIComponent(model)}` : "";
      const found = await tumble.get(`/api/particles?sort=id&limit=1&ids=${id}${more}`);
      known.set(id, found.particles[0]);
    }
    return known.get(id);
  }

  function size(one) {
    if (one.diameter_nm !== null) return `${one.diameter_nm.toPrecision(4)} nm`;
    return one.diameter_px === null ? "unknown" : `${one.diameter_px.toPrecision(4)} px`;
  }

  function facts(one) {
    return {
      Label: one.label ?? "none",
      "Model says": one.predicted === null ? "nothing yet" : `${one.predicted}, ${Math.round(100 * one.probability)}%`,
      Diameter: size(one),
    };
  }

  // A list of terms, whatever the texts are.
  function list(pairs) {
    const box = document.createElement("dl");
    box.className = "facts";
    for (const [name, value] of Object.entries(pairs)) {
      const term = document.createElement("dt");
      term.textContent = name;
      const text = document.createElement("dd");
      text.textContent = value;
      box.append(term, text);
    }
    return box;
  }

  return { query, remember, particle, facts, list };
})();
