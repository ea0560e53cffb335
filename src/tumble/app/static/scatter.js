"use strict";
// The latent scatter: Bokeh draws it; what is selected, shown and pointed at is handled here.
(async () => {
  const source = document.getElementById("initial");
  if (!source) return;
  const initial = JSON.parse(source.textContent);
  const { remember, particle, facts, list } = window.tumbleExplore;
  const frame = document.getElementById("plot");
  const hover = document.getElementById("hover");
  const $ = (id) => document.getElementById(id);

  let answer;
  try {
    answer = await tumble.get(`/api/explore/scatter${location.search}`);
  } catch (error) {
    frame.firstElementChild.textContent = error.message;
    return;
  }
  frame.replaceChildren();
  await Bokeh.embed.embed_item(answer.item, frame);
  const doc = Bokeh.documents[Bokeh.documents.length - 1];
  const plot = doc.get_model_by_name("plot");
  const particles = doc.get_model_by_name("particles");
  const ids = Array.from(particles.data.id);
  const place = new Map(ids.map((id, i) => [id, i]));
  frame.setAttribute("aria-busy", "false");

  // ---- looks ----
  function dress() {
    const style = getComputedStyle(document.documentElement);
    const [surface, text, quiet, border] = ["--surface", "--text", "--quiet", "--border"].map((name) => style.getPropertyValue(name).trim());
    plot.setv({ background_fill_color: surface, border_fill_color: surface });
    for (const axis of [...plot.below, ...plot.left]) {
      axis.setv({
        axis_label_text_color: text, major_label_text_color: quiet, axis_line_color: quiet, axis_label_text_font_style: "normal",
        major_tick_line_color: quiet, minor_tick_line_color: null,
      });
    }
    for (const grid of plot.center) grid.setv({ grid_line_color: border, grid_line_alpha: 0.6 });
  }
  dress();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);

  function legend() {
    const { title, groups, missing, scale, palette, note } = answer.legend;
    $("legend-title").textContent = title;
    const rows = groups.map((group) => row(group.colour, group.name, group.n));
    if (scale) rows.push(bar(scale, palette));
    if (missing) rows.push(row("#9aa0a6", "none", missing));
    $("legend").replaceChildren(...rows);
    $("legend-note").textContent = note;
  }

  function row(colour, name, n) {
    const item = document.createElement("li");
    const dot = document.createElement("i");
    dot.style.background = colour;
    const text = document.createElement("span");
    text.textContent = name;
    text.title = name;
    const count = document.createElement("b");
    count.textContent = n.toLocaleString("en");
    item.append(dot, text, count);
    return item;
  }

  function bar([low, high], palette) {
    const item = document.createElement("li");
    item.className = "scale";
    const strip = document.createElement("i");
    strip.style.background = `linear-gradient(to right, ${palette.join(",")})`;
    const ends = [low, high].map((value) => {
      const end = document.createElement("span");
      end.textContent = value.toPrecision(3);
      return end;
    });
    item.append(strip, ...ends);
    return item;
  }
  legend();
  const shown = answer.sampled
    ? `A random sample of ${answer.n.toLocaleString("en")} of ${answer.total.toLocaleString("en")} particles is drawn; a selection is of those.`
    : `${answer.n.toLocaleString("en")} particles`;
  $("drawn").textContent = shown + (answer.left_out ? `; ${answer.left_out.toLocaleString("en")} without these values are left out` : "");

  // ---- what the mouse does ----
  const buttons = [...document.querySelectorAll("[data-tool]")];
  function take(name) {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.tool === name)));
    plot.toolbar.active_drag = doc.get_model_by_name(name);
    for (const one of ["lasso", "box", "move"]) doc.get_model_by_name(one).active = one === name;
  }
  buttons.forEach((button) => button.addEventListener("click", () => take(button.dataset.tool)));

  function showWhole() {
    const [left, right, bottom, top] = answer.whole;
    plot.x_range.setv({ start: left, end: right });
    plot.y_range.setv({ start: bottom, end: top });
    clearTimeout(later);
    remember({ at: "" });
  }
  let later = 0;
  function moved() {
    clearTimeout(later);
    later = setTimeout(() => {
      const { x_range: x, y_range: y } = plot;
      remember({ at: [x.start, x.end, y.start, y.end].map((value) => Number(value.toPrecision(5))).join(",") });
    }, 300);
  }
  plot.x_range.change.connect(moved);
  plot.y_range.change.connect(moved);
  $("whole").addEventListener("click", showWhole);

  // ---- selection ----
  let asked = 0;
  async function selected() {
    const indices = Array.from(particles.selected.indices);
    const n = indices.length;
    const mine = (asked += 1);
    $("clear").disabled = !n;
    $("chosen").textContent = n ? `${n.toLocaleString("en")} selected` : "Draw around particles to select them";
    const link = $("open");
    link.removeAttribute("href");
    link.setAttribute("aria-disabled", "true");
    if (!n) { remember({ selected: "" }); return; }
    try {
      const found = await tumble.post("/api/selection", { ids: indices.map((i) => ids[i]) });
      if (mine !== asked) return;
      remember({ selected: found.ids });
      const address = new URLSearchParams({ ids: found.ids });
      const model = window.tumbleExplore.query().get("model");
      if (model) address.set("model", model);
      link.href = `/label?${address}`;
      link.removeAttribute("aria-disabled");
    } catch { /* was said */ }
  }
  function choose(indices) {
    particles.selected.indices = indices;
  }
  particles.selected.change.connect(selected);
  $("clear").addEventListener("click", () => choose([]));
  const before = initial.selected.map((id) => place.get(id)).filter((i) => i !== undefined);
  if (before.length) choose(before);

  // ---- the particle under the mouse ----
  let at = -1;
  async function point() {
    const found = particles.inspected.indices;
    const id = found.length ? ids[found[found.length - 1]] : -1;
    if (id === at) return;
    at = id;
    if (id < 0) { hover.hidden = true; return; }
    try {
      const one = await particle(id);
      if (at !== id) return;
      hover.firstElementChild.src = `/crops/${id}.png?v=${initial.key}`;
      const title = document.createElement("strong");
      title.textContent = `Particle ${id}`;
      hover.lastElementChild.replaceChildren(title, list(facts(one)));
      hover.hidden = false;
    } catch { /* was said */ }
  }
  particles.inspect.connect(point);
  frame.addEventListener("pointermove", (event) => {
    const left = event.clientX + 300 > innerWidth ? event.clientX - 300 : event.clientX + 16;
    hover.style.left = `${Math.max(4, left)}px`;
    hover.style.top = `${Math.min(event.clientY + 14, innerHeight - 130)}px`;
  });
  frame.addEventListener("pointerleave", () => { hover.hidden = true; at = -1; });

  const keys = { l: () => take("lasso"), b: () => take("box"), m: () => take("move"), 0: showWhole, Escape: () => choose([]) };
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    keys[event.key]();
    event.preventDefault();
  });
  document.body.dataset.ready = "yes";
})();
