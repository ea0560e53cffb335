"use strict";
// Follows the training: asks the server once a second and draws the curves.
(() => {
  const element = (id) => document.getElementById(id);
  const going = new Set(["preparing", "running", "classifying"]);
  const titles = {
    none: "No training yet", preparing: "Preparing", running: "Training", classifying: "Classifying all particles",
    stopped: "Stopped", interrupted: "Cut off", failed: "The training failed", done: "Done",
  };
  let before = null;
  let timer = 0;

  function show(run) {
    const active = going.has(run.state);
    element("run-title").textContent = titles[run.state] + (run.name ? ` · ${run.name}` : "");
    const message = element("run-message");
    message.classList.toggle("bad", run.state === "failed");
    message.textContent = sentence(run);
    element("start-button").hidden = active;
    element("stop").hidden = !active;
    element("resume").hidden = !["stopped", "interrupted", "failed"].includes(run.state);
    bar(run, active);
    const curves = run.curves ?? {};
    const drawn = (run.epochs ?? []).length > 0;
    element("charts").hidden = element("curves-out").hidden = !drawn;
    if (drawn) {
      draw(element("chart-loss"), run.epochs, curves.loss ?? [], run.max_epochs);
      const accuracy = curves.validation_accuracy ?? [];
      element("accuracy-figure").hidden = accuracy.length === 0;
      draw(element("chart-accuracy"), run.epochs, accuracy, run.max_epochs, [0, 1]);
      element("loss-now").textContent = number(curves.loss);
      element("accuracy-now").textContent = accuracy.length ? percent(accuracy[accuracy.length - 1]) : "";
    }
    film(run);
    outcome(run);
    if (before && going.has(before) && run.state === "done") {
      tumble.say("The model is ready; the gallery is sorted by it now.");
      listModels();
    }
    before = run.state;
    clearTimeout(timer);
    if (active) timer = setTimeout(poll, 1000);
  }

  // The list alone: a page that reloads itself would take away the link that is being followed.
  async function listModels() {
    try {
      const page = new DOMParser().parseFromString(await (await fetch("/train")).text(), "text/html");
      element("models").replaceChildren(...page.getElementById("models").childNodes);
    } catch { /* it is there when the page is opened again */ }
  }

  function sentence(run) {
    if (run.state === "none") return "Choose on the left and start. Training goes on when this page is closed.";
    if (run.state === "running" && run.epoch) {
      return `Epoch ${run.epoch} of ${run.max_epochs}, ${duration(run.remaining_s)} left; ${run.n_labels} labels` +
        (run.n_held_out ? `, ${run.n_held_out} held out` : "");
    }
    if (run.state === "preparing" || run.state === "running") return "The first epoch begins in a moment.";
    if (run.state === "classifying") return run.total ? `${run.done.toLocaleString("en")} of ${run.total.toLocaleString("en")} particles` : "";
    return run.message;
  }

  function bar(run, active) {
    const box = element("bar");
    const part = run.state === "classifying" ? 1 : run.max_epochs ? run.epoch / run.max_epochs : 0;
    box.hidden = !active && !["stopped", "interrupted"].includes(run.state);
    box.firstElementChild.style.width = `${100 * part}%`;
    box.setAttribute("aria-valuenow", Math.round(100 * part));
  }

  // ---- the manifold as it grows: the newest drawings, or those of the epoch that was chosen ----
  let shownFilm = null;
  let chosen = null; // null follows the training

  function film(run) {
    const epochs = run.filmed ?? [];
    element("film").hidden = !epochs.length;
    if (!epochs.length) return;
    if (!shownFilm || shownFilm.name !== run.name) {
      chosen = null;
      element("film-classes").replaceChildren(...run.classes.map((name) => {
        const figure = document.createElement("figure");
        const image = document.createElement("img");
        image.alt = `What the model draws of ${name}`;
        const caption = document.createElement("figcaption");
        caption.textContent = caption.title = name;
        figure.append(image, caption);
        return figure;
      }));
    }
    shownFilm = { name: run.name, epochs };
    const slider = element("film-epoch");
    slider.max = epochs.length - 1;
    slider.hidden = epochs.length < 2;
    if (chosen === null || chosen >= epochs.length) slider.value = epochs.length - 1;
    frame();
  }

  function frame() {
    const epoch = shownFilm.epochs[Number(element("film-epoch").value)];
    element("film-now").textContent = `after epoch ${epoch}`;
    element("film-epoch").setAttribute("aria-valuetext", `epoch ${epoch}`);
    element("film-classes").querySelectorAll("img").forEach((image, k) => {
      const address = `/api/train/manifold/${shownFilm.name}/${epoch}/${k}.png`;
      if (image.getAttribute("src") !== address) image.src = address;
    });
  }

  element("film-epoch").addEventListener("input", (event) => {
    const value = Number(event.target.value);
    chosen = value === shownFilm.epochs.length - 1 ? null : value;
    frame();
  });

  function outcome(run) {
    const text = element("run-result");
    const table = element("recalls");
    const done = run.state === "done";
    text.hidden = !done;
    table.hidden = !(done && run.scores);
    if (!done) return;
    text.replaceChildren(run.scores
      ? `Balanced accuracy on ${run.scores.n_test} held-out labels: ${percent(run.scores.balanced_accuracy)}. `
      : "No labels were held out, so that the accuracy is not known: five of a class are the least. ");
    const link = document.createElement("a");
    link.href = "/label?sort=useful";
    link.textContent = "Label what is useful next";
    text.append(link);
    if (!run.scores) return;
    const more = document.createElement("a");
    more.href = `/explore/confusion?${new URLSearchParams({ model: run.name, of: "test" })}`;
    more.textContent = "See what it confuses";
    text.append(" · ", more);
    const rows = run.scores.classes.map((name, k) => {
      const row = document.createElement("tr");
      const counts = run.scores.confusion[k];
      const n = counts.reduce((sum, value) => sum + value, 0);
      for (const value of [name, n ? `${counts[k]} of ${n}` : "none held out"]) {
        const cell = document.createElement("td");
        cell.textContent = value;
        row.append(cell);
      }
      return row;
    });
    table.tBodies[0].replaceChildren(...rows);
  }

  // ---- curves ----
  const make = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };

  function draw(svg, epochs, values, last, range) {
    const points = epochs.map((epoch, i) => [epoch, values[i]]).filter(([, value]) => value !== null && value !== undefined);
    if (!points.length) { svg.replaceChildren(); return; }
    const sorted = points.map(([, value]) => value);
    let [low, high] = range ?? [Math.min(...sorted), Math.max(...sorted)];
    if (high - low < 1e-9) { low -= 0.5; high += 0.5; }
    const left = 52, right = 412, top = 10, bottom = 152;
    const x = (epoch) => left + ((epoch - 1) / Math.max(1, (last ?? epochs.length) - 1)) * (right - left);
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
    const parts = [];
    for (const part of [0, 0.5, 1]) {
      const value = low + part * (high - low);
      parts.push(make("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: "grid" }));
      const text = make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" });
      text.textContent = range ? percent(value) : value.toPrecision(3);
      parts.push(text);
    }
    for (const [epoch, anchor] of [[1, "start"], [last ?? epochs.length, "end"]]) {
      const text = make("text", { x: x(epoch), y: 170, "text-anchor": anchor });
      text.textContent = anchor === "end" ? `epoch ${epoch}` : epoch;
      parts.push(text);
    }
    const path = points.map(([epoch, value]) => `${x(epoch).toFixed(1)},${y(value).toFixed(1)}`);
    parts.push(make("polyline", { points: path.join(" "), class: "curve" }));
    const [end, value] = points[points.length - 1];
    parts.push(make("circle", { cx: x(end), cy: y(value), r: 3.5, class: "end" }));
    svg.replaceChildren(...parts);
  }

  const percent = (value) => (value === null || value === undefined ? "" : `${(100 * value).toFixed(value === 1 ? 0 : 1)} %`);
  const number = (values) => (values && values.length && values[values.length - 1] !== null ? values[values.length - 1].toPrecision(4) : "");
  const duration = (seconds) => {
    if (seconds === null) return "some time";
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  };

  // ---- actions ----
  async function poll() {
    try {
      show(await tumble.get("/api/train"));
    } catch {
      timer = setTimeout(poll, 5000); // the server may come back
    }
  }

  async function act(url, body) {
    try {
      show(await tumble.post(url, body));
    } catch (error) {
      element("run-message").textContent = error.message;
      element("run-message").classList.add("bad");
    }
  }

  element("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target.elements;
    act("/api/train", {
      max_epochs: form.max_epochs.value ? Number(form.max_epochs.value) : null,
      hold_out: form.hold_out.checked,
    });
  });
  element("stop").addEventListener("click", () => act("/api/train/stop"));
  element("resume").addEventListener("click", () => act("/api/train/resume"));
  show(JSON.parse(element("initial").textContent));
})();
