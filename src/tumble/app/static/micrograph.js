"use strict";
// A micrograph with outlined particles on a canvas. Places are in px of the micrograph; `view` says where they lie on the screen.
(async () => {
  const source = document.getElementById("initial");
  if (!source) return;
  const initial = JSON.parse(source.textContent);
  const { query, remember, particle, facts, list } = window.tumbleExplore;
  const $ = (id) => document.getElementById(id);
  const canvas = $("canvas");
  const pen = canvas.getContext("2d");
  const view = { left: 0, top: 0, scale: 1 }; // micrograph px of the upper left corner, screen px per micrograph px
  let chosen = null;
  let lines = query().get("outlines") !== "off";

  const image = new Image();
  image.src = `/explore/micrograph/${initial.micrograph}.png?v=${initial.key}`;
  const asked = query();
  asked.set("micrograph", initial.micrograph);
  let data;
  try {
    [data] = await Promise.all([tumble.get(`/api/explore/micrograph?${asked}`), image.decode()]);
  } catch (error) {
    tumble.say(error.message, true);
    return;
  }
  const { width, height } = data;

  // ---- particles ----
  const shapes = data.particles.map((one) => {
    const path = new Path2D();
    const points = one.outline;
    const box = { left: Infinity, right: -Infinity, top: Infinity, bottom: -Infinity };
    for (let k = 0; k < points.length; k += 2) {
      // The centre of the first pixel is 0, its edge -0.5.
      const [y, x] = [points[k] + 0.5, points[k + 1] + 0.5];
      if (k) path.lineTo(x, y);
      else path.moveTo(x, y);
      box.left = Math.min(box.left, x); box.right = Math.max(box.right, x);
      box.top = Math.min(box.top, y); box.bottom = Math.max(box.bottom, y);
    }
    path.closePath();
    return { ...one, path, box };
  });
  const byId = new Map(shapes.map((one, i) => [one.id, i]));
  const order = new Map(Object.keys(data.colours).map((name, i) => [name, i]));
  const groups = new Map();
  for (const one of shapes) {
    const key = `${one.class ?? ""}\n${one.labelled}`;
    if (!groups.has(key)) groups.set(key, { name: one.class, labelled: one.labelled, path: new Path2D(), n: 0 });
    groups.get(key).path.addPath(one.path);
    groups.get(key).n += 1;
  }
  const colour = (name) => (name === null ? "#9aa0a6" : data.colours[name] ?? "#9aa0a6");

  // ---- drawing ----
  let waiting = false;
  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }

  function paint() {
    const ratio = devicePixelRatio || 1;
    const [wide, high] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const zoom = view.scale * ratio;
    pen.setTransform(zoom, 0, 0, zoom, -view.left * zoom, -view.top * zoom);
    pen.imageSmoothingEnabled = view.scale < 3;
    pen.drawImage(image, 0, 0, width, height);
    if (lines) {
      for (const { name, labelled, path } of groups.values()) {
        pen.strokeStyle = colour(name);
        pen.lineWidth = (labelled ? 2.6 : 1.5) / view.scale;
        pen.stroke(path);
      }
    }
    if (chosen !== null) {
      const shape = shapes[chosen];
      pen.strokeStyle = "#000";
      pen.lineWidth = 6 / view.scale;
      pen.stroke(shape.path);
      pen.strokeStyle = "#fff";
      pen.lineWidth = 3 / view.scale;
      pen.stroke(shape.path);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (data.pixel_size_nm) scaleBar(wide, high);
  }

  function scaleBar(wide, high) {
    const most = (0.2 * wide / view.scale) * data.pixel_size_nm;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((step) => step * power).find((value) => value <= most);
    const across = (length / data.pixel_size_nm) * view.scale;
    pen.fillStyle = "rgb(0 0 0 / 65%)";
    pen.fillRect(wide - across - 24, high - 40, across + 16, 32);
    pen.fillStyle = "#fff";
    pen.fillRect(wide - across - 16, high - 18, across, 4);
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.fillText(length >= 1000 ? `${length / 1000} µm` : `${Number(length.toPrecision(3))} nm`, wide - 16 - across / 2, high - 24);
  }

  // ---- what is shown ----
  let later = 0;
  function keep() {
    clearTimeout(later);
    later = setTimeout(() => {
      const part = [view.left, view.top, canvas.clientWidth / view.scale, canvas.clientHeight / view.scale];
      remember({ at: part.map((value) => Math.round(value * 10) / 10).join(",") });
    }, 300);
  }

  function fit([left, top, wide, high]) {
    view.scale = Math.min(canvas.clientWidth / wide, canvas.clientHeight / high);
    view.left = left - (canvas.clientWidth / view.scale - wide) / 2;
    view.top = top - (canvas.clientHeight / view.scale - high) / 2;
    draw();
  }

  function whole() {
    fit([0, 0, width, height]);
    clearTimeout(later);
    remember({ at: "" });
  }

  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const least = 0.5 * Math.min(canvas.clientWidth / width, canvas.clientHeight / height);
    const scale = Math.max(least, Math.min(40, view.scale * factor));
    view.left += x / view.scale - x / scale;
    view.top += y / view.scale - y / scale;
    view.scale = scale;
    draw();
    keep();
  }

  function move(right, down) {
    // Half of the window stays on the image.
    const [wide, high] = [canvas.clientWidth / view.scale, canvas.clientHeight / view.scale];
    view.left = Math.max(-wide / 2, Math.min(width - wide / 2, view.left + right / view.scale));
    view.top = Math.max(-high / 2, Math.min(height - high / 2, view.top + down / view.scale));
    draw();
    keep();
  }

  // ---- one particle ----
  function under(x, y) {
    const [across, down] = [view.left + x / view.scale, view.top + y / view.scale];
    const reach = 6 / view.scale;
    let best = null;
    let nearest = Infinity;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    shapes.forEach(({ path, box }, i) => {
      if (across < box.left - reach || across > box.right + reach || down < box.top - reach || down > box.bottom + reach) return;
      const distance = Math.hypot(across - (box.left + box.right) / 2, down - (box.top + box.bottom) / 2) -
        (pen.isPointInPath(path, across, down) ? 1e6 : 0);
      if (distance < nearest) { nearest = distance; best = i; }
    });
    return best;
  }

  async function choose(i, show = false) {
    chosen = i;
    remember({ particle: i === null ? "" : shapes[i].id });
    if (i === null) {
      $("one-title").textContent = "No particle chosen";
      $("one").replaceChildren();
      draw();
      return;
    }
    const { id, box } = shapes[i];
    if (show) bring(box);
    draw();
    $("one-title").textContent = `Particle ${id}`;
    try {
      const one = await particle(id);
      if (chosen !== i) return;
      const crop = document.createElement("img");
      crop.src = `/crops/${id}.png?v=${initial.key}`;
      crop.alt = `Crop of particle ${id}`;
      const link = document.createElement("a");
      link.className = "button primary";
      link.id = "open";
      link.textContent = "Open in the gallery";
      link.href = gallery(id);
      $("one").replaceChildren(crop, list(facts(one)), link);
    } catch { /* was said */ }
  }

  function gallery(id) {
    const address = new URLSearchParams({ ids: id });
    if (query().get("model")) address.set("model", query().get("model"));
    return `/label?${address}`;
  }

  // Moves the view where a particle lies outside it.
  function bring({ left, right, top, bottom }) {
    const [wide, high] = [canvas.clientWidth / view.scale, canvas.clientHeight / view.scale];
    if (left >= view.left && right <= view.left + wide && top >= view.top && bottom <= view.top + high) return;
    view.left = (left + right - wide) / 2;
    view.top = (top + bottom - high) / 2;
    keep();
  }

  function step(by) {
    if (!shapes.length) return;
    choose(chosen === null ? 0 : (chosen + by + shapes.length) % shapes.length, true);
  }

  function outlines() {
    lines = !lines;
    $("lines").setAttribute("aria-pressed", String(lines));
    remember({ outlines: lines ? "" : "off" });
    draw();
  }

  // ---- mouse and keys ----
  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.clientX, y: event.clientY, far: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) {
      canvas.style.cursor = under(event.offsetX, event.offsetY) === null ? "grab" : "pointer";
      return;
    }
    if (!held.far && Math.hypot(event.clientX - held.x, event.clientY - held.y) < 4) return;
    held.far = true;
    canvas.style.cursor = "grabbing";
    move(held.x - event.clientX, held.y - event.clientY);
    [held.x, held.y] = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointerup", (event) => {
    if (held && !held.far) choose(under(event.offsetX, event.offsetY));
    held = null;
  });
  canvas.addEventListener("pointercancel", () => { held = null; });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, { passive: false });
  $("closer").addEventListener("click", () => zoom(1.5));
  $("farther").addEventListener("click", () => zoom(1 / 1.5));
  $("whole").addEventListener("click", whole);
  $("lines").addEventListener("click", outlines);
  const keys = {
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: whole, o: outlines,
    n: () => step(1), p: () => step(-1), Escape: () => choose(null),
    ArrowLeft: () => move(-80, 0), ArrowRight: () => move(80, 0), ArrowUp: () => move(0, -80), ArrowDown: () => move(0, 80),
    Enter: () => { if (chosen !== null) location.href = gallery(shapes[chosen].id); },
  };
  document.addEventListener("keydown", (event) => {
    const pressing = event.target.matches("button, a") && event.key === "Enter";
    if (event.target.matches("input, select") || pressing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    keys[event.key]();
    event.preventDefault();
  });

  // ---- start ----
  function legend() {
    const counts = new Map();
    for (const one of shapes) counts.set(one.class, (counts.get(one.class) ?? 0) + 1);
    const rank = (name) => (name === null ? Infinity : order.get(name) ?? 1e6);
    const names = [...counts.keys()].sort((a, b) => rank(a) - rank(b));
    $("legend").replaceChildren(...names.map((name) => {
      const item = document.createElement("li");
      const dot = document.createElement("i");
      dot.style.background = colour(name);
      const text = document.createElement("span");
      text.textContent = name ?? "no class";
      const count = document.createElement("b");
      count.textContent = counts.get(name).toLocaleString("en");
      item.append(dot, text, count);
      return item;
    }));
    $("legend-note").textContent = shapes.some((one) => one.labelled) ? "Thick outlines have a label." : "";
  }
  legend();
  $("lines").setAttribute("aria-pressed", String(lines));
  fit(initial.window ?? [0, 0, width, height]);
  if (initial.particle !== null && byId.has(initial.particle)) choose(byId.get(initial.particle), true);
  new ResizeObserver(draw).observe(canvas);
  document.body.dataset.ready = "yes";
})();
