"use strict";
// The classes: their list with keys and colours, making, renaming, merging and colouring them.
window.tumbleClasses = (() => {
  let list = [];
  let reserved = "";
  const listeners = [];
  const box = document.getElementById("classes");

  const named = (name) => list.find((one) => one.name === name);
  // Keys 1 to 9 are for the classes of particles; what is no particle has a key of its own.
  const keyed = () => list.filter((one) => one.name !== reserved);

  function set(classes) {
    list = classes;
    draw();
    listeners.forEach((listener) => listener(list));
  }

  function draw() {
    box.replaceChildren(...keyed().map((one, i) => row(one, i < 9 ? String(i + 1) : "")));
    const other = named(reserved);
    if (other && other.n) box.append(row(other, "x"));
    document.getElementById("no-classes").hidden = keyed().length > 0;
  }

  function row(one, key) {
    const item = document.createElement("li");
    const give = document.createElement("button");
    give.type = "button";
    give.className = "give";
    give.dataset.name = one.name;
    give.title = `Give “${one.name}” to the chosen particles`;
    const sign = document.createElement("kbd");
    sign.textContent = key || "·";
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = one.name;
    const n = document.createElement("span");
    n.className = "n";
    n.textContent = one.n;
    n.title = `${one.n} particles have this label`;
    const colour = document.createElement("i");
    colour.style.background = one.colour;
    give.append(sign, colour, name, n);
    const change = document.createElement("button");
    change.type = "button";
    change.className = "change";
    change.textContent = "…";
    change.setAttribute("aria-label", `Change the class ${one.name}`);
    change.addEventListener("click", () => edit(one));
    item.append(give, change);
    return item;
  }

  function edit(one) {
    const dialog = document.getElementById("class-dialog");
    const form = document.getElementById("class-form");
    form.elements.name.value = one.name;
    form.elements.colour.value = one.colour;
    document.getElementById("class-remove").disabled = one.n > 0;
    document.getElementById("class-hint").textContent =
      one.n > 0
        ? `${one.n} particles have this label. To merge it into another class, give that class's name. Undo gives the labels back.`
        : "No particle has this label.";
    dialog.returnValue = "cancel";
    dialog.addEventListener("close", () => finish(dialog.returnValue, one, form).catch(() => {}), { once: true });
    dialog.showModal();
  }

  async function finish(action, one, form) {
    if (action === "remove") {
      set(await tumble.post("/api/classes/remove", { name: one.name }));
      return;
    }
    if (action !== "save") return;
    const name = form.elements.name.value.trim();
    const colour = form.elements.colour.value;
    if (name && name !== one.name) {
      const merge = Boolean(named(name));
      if (merge && !window.confirm(`Merge “${one.name}” (${one.n} labels) into “${name}”?`)) return;
      const done = await tumble.post("/api/classes/rename", { old: one.name, new: name, merge });
      set(done.classes);
      tumble.say(merge ? `${done.n} labels merged into “${name}”` : `Renamed to “${name}”`);
      document.dispatchEvent(new Event("tumble:labels"));
      if (merge) return;
    }
    if (name && colour !== one.colour) set(await tumble.post("/api/classes", { name, colour }));
  }

  function start(classes, notAParticle) {
    reserved = notAParticle;
    set(classes);
    document.getElementById("new-class").addEventListener("submit", async (event) => {
      event.preventDefault();
      const input = event.target.elements.name;
      if (named(input.value.trim())) {
        tumble.say(`There is a class “${input.value.trim()}” already.`, true);
        return;
      }
      try {
        set(await tumble.post("/api/classes", { name: input.value }));
        input.value = "";
      } catch { /* was said */ }
    });
  }

  return {
    start, set, named,
    byKey: (n) => keyed()[n - 1],
    onChange: (listener) => listeners.push(listener),
    all: () => list,
  };
})();
