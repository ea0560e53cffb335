"use strict";
// Sliders over what a model draws. The server draws; the state lies in the address.
(() => {
  const source = document.getElementById("initial");
  if (!source) return; // no model
  const initial = JSON.parse(source.textContent);
  const get = (id) => document.getElementById(id);
  const form = get("choices");
  const state = { class: initial.class, z: [...initial.z], angle: initial.angle, down: initial.down, right: initial.right };
  const updates = [];

  const chosen = (name) => (form.elements[name] ? Number(form.elements[name].value) : initial[name]);
  // A model of one factor has one row.
  const factors = () => (state.z.length === 1 ? [0, 0] : [chosen("rows") - 1, chosen("columns") - 1]);

  function query() {
    const parts = new URLSearchParams({ model: initial.model, class: state.class });
    if (state.z.some((value) => value !== 0)) parts.set("z", state.z.join(","));
    for (const name of ["angle", "down", "right"]) if (state[name]) parts.set(name, state[name]);
    if (state.z.length > 2 && (chosen("rows") !== 1 || chosen("columns") !== 2)) {
      parts.set("rows", chosen("rows"));
      parts.set("columns", chosen("columns"));
    }
    if (chosen("steps") !== 9) parts.set("steps", chosen("steps"));
    if (chosen("extent") !== 2) parts.set("extent", chosen("extent"));
    return parts.toString();
  }

  // One request at a time, always for the newest state: a slider moves faster than any server answers.
  function drawer(image, address) {
    let busy = false;
    let shown = image.src;
    async function draw() {
      if (busy) return;
      const url = new URL(address(), location.href).href;
      if (url === shown) return;
      busy = true;
      const next = new Image();
      next.src = url;
      try {
        await next.decode();
        image.src = url;
        image.dataset.shown = url;
        shown = url;
        fail("");
      } catch {
        shown = url;
        await tumble.get(url).catch((error) => fail(error.message));
      }
      busy = false;
      draw();
    }
    return draw;
  }

  function fail(sentence) {
    get("manifold-error").textContent = sentence;
    get("manifold-error").hidden = !sentence;
  }

  const drawOne = drawer(get("one"), () => `/explore/manifold/one.png?${query()}`);
  const drawSheet = drawer(get("sheet"), () => {
    const parts = new URLSearchParams(query());
    ["angle", "down", "right"].forEach((name) => parts.delete(name)); // the sheet is upright
    if (parts.has("z")) {
      const still = state.z.map((value, i) => (factors().includes(i) ? 0 : value));
      if (still.some((value) => value !== 0)) parts.set("z", still.join(","));
      else parts.delete("z");
    }
    return `/explore/manifold/sheet.png?${parts}`;
  });

  function show() {
    const here = query();
    history.replaceState(null, "", `?${here}`);
    updates.forEach((update) => update());
    document.querySelectorAll("#class-buttons button").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.name === state.class));
    });
    get("exports").querySelectorAll("a").forEach((link) => { link.search = `?${here}`; });
    get("one-caption").textContent = `${state.class}, as the sliders say`;
    const [down, right] = factors();
    get("sheet-caption").textContent = (down === right ? "" : `z${down + 1} downwards, `) +
      `z${right + 1} to the right, in standard deviations of ${state.class}.`;
    mark();
    drawOne();
    drawSheet();
  }

  // ---- the sheet ----
  const axis = () => {
    const [steps, extent] = [chosen("steps"), chosen("extent")];
    return Array.from({ length: steps }, (_, i) => (steps === 1 ? 0 : -extent + (2 * extent * i) / (steps - 1)));
  };
  const nearest = (value) => axis().reduce((best, one, i, all) => (Math.abs(one - value) < Math.abs(all[best] - value) ? i : best), 0);

  function mark() {
    const [down, right] = factors();
    const n = axis().length;
    const rows = down === right ? 1 : n;
    const box = get("here").style;
    box.width = `${100 / n}%`;
    box.height = `${100 / rows}%`;
    box.left = `${(100 * nearest(state.z[right])) / n}%`;
    box.top = `${(100 * (rows === 1 ? 0 : nearest(state.z[down]))) / rows}%`;
    get("sheet-box").classList.toggle("one-row", rows === 1);
  }

  get("sheet-box").addEventListener("click", (event) => {
    const place = get("sheet-box").getBoundingClientRect();
    const values = axis();
    const [down, right] = factors();
    const pick = (part) => values[Math.max(0, Math.min(values.length - 1, Math.floor(part * values.length)))];
    const round = (value) => Math.round(100 * value) / 100;
    state.z[right] = round(pick((event.clientX - place.left) / place.width));
    if (down !== right) state.z[down] = round(pick((event.clientY - place.top) / place.height));
    show();
  });

  // ---- sliders ----
  function slider(name, range, read, write, text) {
    const label = document.createElement("label");
    const title = document.createElement("span");
    title.textContent = name;
    const output = document.createElement("output");
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: range[0], max: range[1], step: range[2], id: `slider-${updates.length}` });
    label.htmlFor = input.id; // or it would name the output, which comes first
    input.addEventListener("input", () => { write(Number(input.value)); show(); });
    label.append(title, output, input);
    get("sliders").append(label);
    updates.push(() => {
      input.value = read();
      output.textContent = text(read());
      input.setAttribute("aria-valuetext", text(read()));
    });
  }

  state.z.forEach((_, i) => {
    slider(`z${i + 1}`, [-initial.max_extent, initial.max_extent, 0.05], () => state.z[i], (value) => { state.z[i] = value; },
      (value) => value.toFixed(2));
  });
  if (initial.rotation) {
    slider("angle", [-180, 180, 1], () => state.angle, (value) => { state.angle = value; }, (value) => `${value}°`);
  }
  if (initial.translation) {
    for (const name of ["down", "right"]) {
      slider(`shift ${name}`, [-initial.reach, initial.reach, 0.5], () => state[name], (value) => { state[name] = value; },
        (value) => `${value} px`);
    }
  }
  const reset = document.createElement("button");
  reset.type = "button";
  reset.textContent = "Back to the middle";
  reset.addEventListener("click", () => {
    Object.assign(state, { z: state.z.map(() => 0), angle: 0, down: 0, right: 0 });
    show();
  });
  get("sliders").append(reset);

  // ---- classes ----
  initial.classes.forEach((one) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = one.name;
    const colour = document.createElement("i");
    colour.style.background = one.colour;
    button.append(colour, one.name);
    button.addEventListener("click", () => { state.class = one.name; show(); });
    get("class-buttons").append(button);
  });

  form.addEventListener("change", (event) => {
    if (event.target.name === "model") {
      location.search = new URLSearchParams({ model: form.elements.model.value });
      return;
    }
    const { rows, columns } = form.elements;
    if (rows && rows.value === columns.value) { // two factors, never one twice
      const other = event.target === rows ? columns : rows;
      other.value = [...other.options].map((option) => option.value).find((value) => value !== event.target.value);
    }
    show();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  get("one").addEventListener("error", () => tumble.get(get("one").src).catch((error) => fail(error.message)));
  show();
})();
