"use strict";
// The gallery. What is stored lies on the server; what is shown lies in the address.
(() => {
  const source = document.getElementById("initial");
  if (!source) return; // an empty library
  const initial = JSON.parse(source.textContent);
  const gallery = document.getElementById("gallery");
  const classes = window.tumbleClasses;
  const ready = new Map(); // pages that were fetched before they are needed
  let page = initial.page;
  let cards = [];
  let focus = 0;
  let anchor = 0;
  let selected = new Set();
  let saving = Promise.resolve();
  let waiting = 0;
  const unsent = [];

  const image = (id) => `/crops/${id}.png?v=${initial.key}`;
  const address = () => new URLSearchParams(location.search);

  // ---- drawing ----
  function show(next, at = 0) {
    page = next;
    selected = new Set();
    cards = page.particles.map(card);
    gallery.replaceChildren(...cards);
    document.getElementById("nothing").hidden = cards.length > 0;
    const note = document.getElementById("note");
    note.textContent = page.note;
    note.hidden = !page.note;
    if (page.choosing) offerWhenChosen(page);
    document.getElementById("previous").disabled = !page.before;
    document.getElementById("next").disabled = !page.after;
    focus = Math.max(0, Math.min(at, cards.length - 1));
    anchor = focus;
    mark();
    prefetch();
  }

  function card(particle, i) {
    const box = document.createElement("div");
    box.className = "crop";
    box.id = `particle-${particle.id}`;
    box.dataset.id = particle.id;
    box.setAttribute("role", "option");
    box.tabIndex = -1;
    const picture = document.createElement("img");
    picture.src = particle.image ?? image(particle.id);
    picture.alt = "";
    picture.draggable = false;
    picture.decoding = "async";
    const label = document.createElement("span");
    label.className = "tag";
    const guess = document.createElement("span");
    guess.className = "guess";
    box.append(picture, label, guess);
    dress(box, particle);
    box.addEventListener("click", (event) => pick(i, event));
    box.addEventListener("dblclick", () => zoom(i));
    return box;
  }

  function dress(box, particle) {
    const [, label, guess] = box.children;
    const known = particle.label === null ? null : classes.named(particle.label);
    box.style.setProperty("--class", known ? known.colour : "transparent");
    box.classList.toggle("labelled", particle.label !== null);
    label.textContent = particle.label ?? "";
    guess.textContent = particle.predicted === null ? "" : `${particle.predicted} ${Math.round(100 * particle.probability)}%`;
    box.classList.toggle("contradicted", particle.label !== null && particle.predicted !== null && particle.label !== particle.predicted);
    box.setAttribute("aria-label", `Particle ${particle.id}, ${particle.label === null ? "no label" : `label ${particle.label}`}` +
      (particle.predicted === null ? "" : `, model says ${particle.predicted}`));
  }

  function mark(keep = false) {
    cards.forEach((box, i) => {
      const on = selected.has(i);
      box.setAttribute("aria-selected", String(on));
      box.classList.toggle("selected", on);
      box.tabIndex = i === focus ? 0 : -1;
      box.classList.toggle("focus", i === focus);
    });
    if (!keep && cards[focus] && !document.querySelector("dialog[open]")) {
      cards[focus].focus({ preventScroll: true });
      cards[focus].scrollIntoView({ block: "nearest" });
    }
    const query = address();
    if (cards[focus]) query.set("at", cards[focus].dataset.id);
    history.replaceState(null, "", `?${query}`);
    const chosen = selected.size;
    const labelled = page.particles.filter((one) => one.label !== null).length;
    document.getElementById("where").textContent =
      `${cards.length} on this page, ${labelled} with label` + (chosen ? `, ${chosen} selected` : "") + total;
  }

  let total = "";
  async function count() {
    try {
      const { n } = await tumble.get(`/api/count?${conditions()}`);
      total = ` · ${n.toLocaleString("en")} in this view`;
      mark(true);
    } catch { /* was said */ }
  }

  // ---- pages ----
  function conditions() {
    const query = address();
    ["after", "before", "at"].forEach((name) => query.delete(name));
    return query;
  }

  function placed(name, value) {
    const query = conditions();
    query.set("sort", page.sort);
    if (value) query.set(name, value);
    return query;
  }

  function prefetch() {
    document.body.dataset.ahead = "no"; // whether the next page is here
    if (!page.after) return;
    const key = placed("after", page.after).toString();
    if (ready.has(key)) { document.body.dataset.ahead = "yes"; return; }
    setTimeout(async () => {
      try {
        const response = await fetch(`/api/particles?${key}`, { headers: { Accept: "application/json" } });
        if (!response.ok) return;
        ready.set(key, await response.json());
        if (page.after && key === placed("after", page.after).toString()) document.body.dataset.ahead = "yes";
      } catch { /* it is asked for again when it is needed */ }
    }, 60);
  }

  async function turn(name) {
    const value = page[name];
    if (!value) {
      tumble.say(name === "after" ? "This is the last page." : "This is the first page.");
      return;
    }
    const query = placed(name, value);
    const key = query.toString();
    try {
      await saving;
      const next = ready.get(key) ?? (await tumble.get(`/api/particles?${key}`));
      ready.delete(key);
      history.pushState(null, "", `?${query}`);
      show(next);
      window.scrollTo(0, 0);
      if (name === "after") freshen();
    } catch { /* was said */ }
  }

  // The order that was asked for takes a moment: it is offered when it is there, and nothing moves under the hand.
  async function offerWhenChosen(shown) {
    const query = conditions();
    for (;;) {
      await new Promise((go) => setTimeout(go, 700));
      if (page !== shown) return;
      let now;
      try {
        now = await tumble.get(`/api/particles?${query}&crops=false`);
      } catch { return; } // was said
      if (now.choosing) continue;
      if (page !== shown) return;
      const link = document.createElement("a");
      link.href = `/label?${query}`;
      link.textContent = "Show it";
      document.getElementById("note").replaceChildren("What is useful next has been chosen. ", link);
      return;
    }
  }

  // Labels that changed since the page was drawn or fetched.
  async function freshen() {
    const ids = page.particles.map((one) => one.id);
    if (!ids.length) return;
    const now = await tumble.get(`/api/particles?crops=false&sort=id&limit=${ids.length}&ids=${ids.join(",")}`);
    const found = new Map(now.particles.map((one) => [one.id, one]));
    page.particles.forEach((one, i) => {
      if (!found.has(one.id)) return;
      one.label = found.get(one.id).label;
      dress(cards[i], one);
    });
    mark(true);
  }

  async function reload() {
    const query = address();
    const at = query.get("at");
    query.delete("at");
    try {
      show(await tumble.get(`/api/particles?${query}`), 0);
      place(at);
    } catch { /* was said */ }
  }

  function place(id) {
    const i = page.particles.findIndex((one) => String(one.id) === id);
    if (i >= 0) { focus = anchor = i; mark(); }
  }

  // ---- labels ----
  function chosen() {
    return selected.size ? [...selected].sort((a, b) => a - b) : cards.length ? [focus] : [];
  }

  function give(name) {
    const which = chosen();
    if (!which.length) return;
    const before = which.map((i) => page.particles[i].label);
    which.forEach((i) => { page.particles[i].label = name; dress(cards[i], page.particles[i]); });
    const ids = which.map((i) => page.particles[i].id);
    const shown = page;
    // One after the other: the order of labels is their meaning.
    const label = { ids, label: name };
    unsent.push(label);
    saving = saving.then(() => {
      if (!unsent.includes(label)) return {}; // it was sent when the page was left
      unsent.splice(unsent.indexOf(label), 1);
      return tumble.send("/api/labels", label);
    }).then(
      (done) => { if (done.classes) classes.set(done.classes); },
      () => {
        if (shown !== page) return;
        which.forEach((i, k) => { page.particles[i].label = before[k]; dress(cards[i], page.particles[i]); });
      },
    );
    waiting += 1;
    document.body.dataset.saved = "no";
    saving.then(() => { waiting -= 1; document.body.dataset.saved = waiting ? "no" : "yes"; });
    selected = new Set();
    forward(which[which.length - 1]);
  }

  // Who labels fast and leaves at once has labels that wait for their turn: the last one of each particle is sent now.
  window.addEventListener("pagehide", () => {
    const last = new Map(unsent.splice(0).flatMap(({ ids, label }) => ids.map((id) => [id, label])));
    for (const label of new Set(last.values())) {
      const ids = [...last.keys()].filter((id) => last.get(id) === label);
      tumble.send("/api/labels", { ids, label }).catch(() => {}); // nobody is there to be told
    }
  });

  function forward(from) {
    if (from + 1 < cards.length) {
      focus = anchor = from + 1;
      mark();
    } else if (page.after) turn("after");
    else { mark(); tumble.say("That was the last particle of this view."); }
  }

  async function takeBack(what) {
    try {
      await saving;
      const done = await tumble.post(`/api/${what}`);
      classes.set(done.classes);
      tumble.say(`${done.n} label${done.n === 1 ? "" : "s"} ${what === "undo" ? "taken back" : "restored"}`);
      ready.clear();
      await freshen();
    } catch { /* was said */ }
  }

  // ---- choosing ----
  function pick(i, event) {
    if (event.shiftKey) range(i);
    else if (event.ctrlKey || event.metaKey) {
      if (!selected.size && focus !== i) selected.add(focus);
      if (selected.has(i)) selected.delete(i);
      else selected.add(i);
      anchor = i;
    } else { selected = new Set(); anchor = i; }
    focus = i;
    mark();
  }

  function range(to) {
    selected = new Set();
    for (let i = Math.min(anchor, to); i <= Math.max(anchor, to); i += 1) selected.add(i);
  }

  function move(step, extend) {
    const to = Math.max(0, Math.min(cards.length - 1, focus + step));
    if (extend) range(to);
    else { selected = new Set(); anchor = to; }
    focus = to;
    mark();
  }

  function columns() {
    const top = cards[0]?.offsetTop;
    const n = cards.findIndex((box) => box.offsetTop !== top);
    return n < 0 ? Math.max(1, cards.length) : n;
  }

  // ---- one particle ----
  async function zoom(i) {
    const particle = page.particles[i];
    if (!particle) return;
    const dialog = document.getElementById("zoom");
    document.getElementById("zoom-crop").src = image(particle.id);
    document.getElementById("zoom-context").src = `/context/${particle.id}.png?v=${initial.key}`;
    document.getElementById("zoom-explore").href = `/explore/micrograph?micrograph=${particle.micrograph}&particle=${particle.id}`;
    document.getElementById("zoom-title").textContent = `Particle ${particle.id}`;
    document.getElementById("zoom-history").replaceChildren();
    document.getElementById("zoom-box").hidden = true;
    if (!dialog.open) dialog.showModal();
    try {
      const more = await tumble.get(`/api/particles/${particle.id}`);
      const size = particle.diameter_nm !== null ? `${particle.diameter_nm.toPrecision(4)} nm`
        : particle.diameter_px !== null ? `${particle.diameter_px.toPrecision(4)} px` : "unknown";
      facts({
        Micrograph: `${more.micrograph} · ${more.source}`,
        Diameter: size,
        Label: particle.label ?? "none",
        "Model says": particle.predicted === null ? "nothing yet" : `${particle.predicted}, ${Math.round(100 * particle.probability)}%`,
        Novelty: particle.novelty === null ? "unknown" : particle.novelty.toFixed(2),
      });
      const box = document.getElementById("zoom-box");
      for (const side of ["left", "top", "width", "height"]) box.style[side] = `${100 * more.place[side]}%`;
      box.hidden = false;
      const lines = more.history.map((entry) => {
        const line = document.createElement("li");
        line.textContent = `${entry.label ?? "withdrawn"} by ${entry.author}, ${entry.at.replace("T", " ")}${entry.undone ? " (undone)" : ""}`;
        return line;
      });
      if (!lines.length) {
        lines.push(document.createElement("li"));
        lines[0].textContent = "none";
      }
      document.getElementById("zoom-history").replaceChildren(...lines.reverse());
    } catch { /* was said */ }
  }

  function facts(pairs) {
    const parts = Object.entries(pairs).flatMap(([name, value]) => {
      const term = document.createElement("dt");
      term.textContent = name;
      const text = document.createElement("dd");
      text.textContent = value;
      return [term, text];
    });
    document.getElementById("zoom-facts").replaceChildren(...parts);
  }

  // ---- keys ----
  const moves = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -columns(), ArrowDown: () => columns() };
  const keys = {
    x: () => give(initial.not_a_particle),
    0: () => give(null),
    Delete: () => give(null),
    u: () => takeBack("undo"),
    r: () => takeBack("redo"),
    " ": () => forward(focus),
    n: () => turn("after"),
    PageDown: () => turn("after"),
    p: () => turn("before"),
    PageUp: () => turn("before"),
    z: () => zoom(focus),
    Enter: () => zoom(focus),
    a: () => { selected = new Set(cards.keys()); mark(); },
    Escape: () => { selected = new Set(); mark(); },
    Home: () => move(-cards.length, false),
    End: () => move(cards.length, false),
  };

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    const typing = target.matches("input:not([type=range]), select, textarea");
    const pressing = target.matches("button, a, summary") && [" ", "Enter"].includes(event.key);
    const zoomed = document.getElementById("zoom").open;
    if (typing || pressing || event.altKey || document.getElementById("class-dialog").open) return;
    if ((event.ctrlKey || event.metaKey) && event.key !== "a") return;
    if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
    if (zoomed && event.key === "Escape") return; // the dialog closes itself
    if (zoomed && (event.key === "z" || event.key === "Enter")) {
      event.preventDefault();
      document.getElementById("zoom").close();
      mark();
      return;
    }
    const digit = /^[1-9]$/.test(event.key) && !event.shiftKey;
    if (digit) {
      const one = classes.byKey(Number(event.key));
      if (one) give(one.name);
      else tumble.say(`There is no class ${event.key}. Add one on the left.`, true);
    } else if (event.key in moves) move(moves[event.key](), event.shiftKey);
    else if (event.key in keys) keys[event.key]();
    else return;
    event.preventDefault();
    if (document.getElementById("zoom").open && !["z", "Enter"].includes(event.key)) zoom(focus);
  });

  // ---- start ----
  const view = document.getElementById("view");
  view.addEventListener("change", (event) => {
    if (event.target.id === "tile") return;
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(view)) {
      if (value && !(name === "show" && value === "all")) query.set(name, value);
    }
    for (const name of ["ids", "unit", "from", "to", "model", "other", "other_class", "limit"]) if (address().has(name)) query.set(name, address().get(name));
    location.search = query;
  });
  const tile = document.getElementById("tile");
  const resize = () => gallery.style.setProperty("--tile", `${tile.value}px`);
  tile.value = localStorage.getItem("tumble-tile") ?? tile.value;
  tile.addEventListener("input", () => { resize(); localStorage.setItem("tumble-tile", tile.value); });
  document.getElementById("next").addEventListener("click", () => turn("after"));
  document.getElementById("previous").addEventListener("click", () => turn("before"));
  document.getElementById("undo").addEventListener("click", () => takeBack("undo"));
  document.getElementById("classes").addEventListener("click", (event) => {
    const button = event.target.closest(".give");
    if (button) give(button.dataset.name);
  });
  const exports = document.getElementById("exports");
  document.addEventListener("click", (event) => {
    if (!exports.contains(event.target) || event.target.matches("a")) exports.open = false;
  });
  document.querySelectorAll("#exports a").forEach((link) => { link.href = `${link.pathname}?${conditions()}`; });
  exports.addEventListener("toggle", () => { // just what is shown, even where the order would be another one by now
    const query = new URLSearchParams({ ids: page.particles.map((one) => one.id).join(","), limit: Math.max(1, cards.length) });
    if (address().has("model")) query.set("model", address().get("model"));
    exports.querySelectorAll("[data-page]").forEach((link) => { link.href = `${link.pathname}?${query}`; });
  });
  document.getElementById("zoom").addEventListener("close", () => mark());
  document.addEventListener("tumble:labels", () => { ready.clear(); freshen(); });
  window.addEventListener("popstate", reload);
  classes.onChange((list) => {
    cards.forEach((box, i) => dress(box, page.particles[i]));
    const select = view.elements.label;
    const value = select.value || select.dataset.value;
    const names = list.map((one) => one.name);
    if (value && !names.includes(value)) names.push(value);
    select.replaceChildren(new Option("any", ""), ...names.map((name) => new Option(name, name)));
    select.value = value;
  });
  resize();
  gallery.classList.toggle("without-model", !initial.has_model);
  const at = address().get("at");
  classes.start(initial.classes, initial.not_a_particle);
  show(page);
  place(at);
  count();
})();
