"use strict";
// Three cuts of up to three layers through one cross-hair. Every layer is drawn with its own voxels, nearest neighbour.
(() => {
  const byId = (id) => document.getElementById(id);
  const spec = JSON.parse(byId("layers").textContent);
  const n = spec.shape;
  // Axes of the display run to the patient's right, front and top. u to the right of the picture, v up, w across.
  const planes = [
    { name: "sagittal", u: 1, v: 2, w: 0, left: "P", right: "A" },
    { name: "coronal", u: 0, v: 2, w: 1, left: "R", right: "L" },
    { name: "axial", u: 0, v: 1, w: 2, left: "R", right: "L" },
  ];
  const cross = spec.start.slice();
  const columns = [];
  const tables = {};
  let neurological = false;
  let difference = false;

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const unpacked = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  // Levels are stored as differences along the last axis.
  const summed = (changes, length) => {
    for (let k = 0; k < changes.length; k++) if (k % length) changes[k] += changes[k - 1];
    return changes;
  };
  const number = (value) => (Math.abs(value) >= 1000 || value === 0 ? value.toFixed(0) : value.toPrecision(3));

  const makeTables = () => {
    const gain = byId("window").value / 100;
    const gray = new Uint32Array(256);
    for (let k = 0; k < 256; k++) {
      const g = Math.min(255, Math.round(k * gain));
      gray[k] = 0xff000000 | (g << 16) | (g << 8) | g;
    }
    tables.gray = gray;
    for (const [name, text] of Object.entries(spec.tables)) {
      if (tables[name]) continue;
      const rgb = bytes(text);
      tables[name] = Uint32Array.from({ length: 256 }, (_, k) =>
        (0xff000000 | (rgb[3 * k + 2] << 16) | (rgb[3 * k + 1] << 8) | rgb[3 * k]) >>> 0);
    }
  };

  // The level of a layer at a display voxel, -1 outside.
  const levelAt = (layer, p) => {
    let at = 0;
    for (let d = 0; d < 3; d++) {
      const m = layer.affine[d];
      const q = Math.floor(m[0] * p[0] + m[1] * p[1] + m[2] * p[2] + m[3] + 0.5);
      if (q < 0 || q >= layer.shape[d]) return -1;
      at = at * layer.shape[d] + q;
    }
    return layer.levels[at];
  };

  // Levels of one cut, row by row from the top; -1 outside.
  const cut = (layer, plane, out) => {
    const [nu, nv] = [n[plane.u], n[plane.v]];
    const mirror = plane.u === 0 && !neurological;
    const p = cross.slice();
    const m = layer.affine, s = layer.shape;
    let k = 0;
    for (let row = 0; row < nv; row++) {
      p[plane.v] = nv - 1 - row;
      p[plane.u] = mirror ? nu - 1 : 0;
      const sign = mirror ? -1 : 1;
      let a = m[0][0] * p[0] + m[0][1] * p[1] + m[0][2] * p[2] + m[0][3] + 0.5;
      let b = m[1][0] * p[0] + m[1][1] * p[1] + m[1][2] * p[2] + m[1][3] + 0.5;
      let c = m[2][0] * p[0] + m[2][1] * p[1] + m[2][2] * p[2] + m[2][3] + 0.5;
      const da = sign * m[0][plane.u], db = sign * m[1][plane.u], dc = sign * m[2][plane.u];
      for (let column = 0; column < nu; column++, a += da, b += db, c += dc) {
        const i = Math.floor(a), j = Math.floor(b), l = Math.floor(c);
        out[k++] = i < 0 || j < 0 || l < 0 || i >= s[0] || j >= s[1] || l >= s[2]
          ? -1 : layer.levels[(i * s[1] + j) * s[2] + l];
      }
    }
  };

  const result = () => spec.layers[spec.result];
  // Differences are drawn for grey layers but the result, over a quarter of the grey scale either way.
  const differs = (layer) => difference && layer.colours === "gray" && layer !== result();
  const reach = () => (255 * result().step) / 4;

  const drawPane = (pane, layer) => {
    const { plane, image, levels, other } = pane;
    const pixels = new Uint32Array(image.data.buffer);
    cut(layer, plane, levels);
    if (differs(layer)) {
      const table = tables.diverging, scale = 127.5 / reach(), top = result();
      cut(top, plane, other);
      for (let k = 0; k < pixels.length; k++) {
        const d = top.low + other[k] * top.step - (layer.low + levels[k] * layer.step);
        const level = Math.round(127.5 + d * scale);
        pixels[k] = levels[k] < 0 || other[k] < 0 ? 0xff000000 : table[Math.max(0, Math.min(255, level))];
      }
    } else {
      const table = tables[layer.colours];
      for (let k = 0; k < pixels.length; k++) pixels[k] = levels[k] < 0 ? 0xff000000 : table[levels[k]];
    }
    pane.context.putImageData(image, 0, 0);
    const mirror = plane.u === 0 && !neurological;
    const x = (mirror ? n[plane.u] - 1 - cross[plane.u] : cross[plane.u]) + 0.5;
    pane.vertical.style.left = `${(100 * x) / n[plane.u]}%`;
    pane.horizontal.style.top = `${100 * (1 - (cross[plane.v] + 0.5) / n[plane.v])}%`;
    const ends = plane.u === 0 && neurological ? [plane.right, plane.left] : [plane.left, plane.right];
    pane.left.textContent = ends[0];
    pane.right.textContent = ends[1];
  };

  const draw = () => {
    const begin = performance.now();
    for (const column of columns) {
      if (column.element.offsetParent === null) continue; // hidden on narrow screens
      const layer = spec.layers[column.select.value];
      column.panes.forEach((pane) => drawPane(pane, layer));
      const shownAs = differs(layer) ? "diverging" : layer.colours;
      const [low, high] = differs(layer) ? [-reach(), reach()] : [layer.low, layer.low + 255 * layer.step];
      const gain = shownAs === "gray" ? 100 / byId("window").value : 1;
      column.bar.dataset.colours = shownAs;
      column.low.textContent = number(low);
      column.high.textContent = number(high * gain);
      const level = levelAt(layer, cross), mine = layer.low + level * layer.step;
      const there = levelAt(result(), cross);
      const value = differs(layer) ? result().low + there * result().step - mine : mine;
      column.value.textContent = level < 0 ? "not measured here" : number(value);
      column.what.textContent = differs(layer) ? `${result().name} less ${layer.name}.` : layer.what;
    }
    const world = [0, 1, 2].map((d) => spec.affine[d].slice(0, 3).reduce((sum, m, k) => sum + m * cross[k], spec.affine[d][3]));
    byId("place").textContent = ["R", "A", "S"].map((side, d) => `${side} ${world[d].toFixed(1)}`).join(", ") + " mm";
    planes.forEach((plane) => {
      const slider = byId(`slide-${plane.name}`);
      slider.value = cross[plane.w];
      slider.setAttribute("aria-valuetext", `${cross[plane.w] + 1} of ${n[plane.w]}`);
      byId(`at-${plane.name}`).textContent = `${cross[plane.w] + 1}/${n[plane.w]}`;
    });
    document.body.dataset.drawMs = (performance.now() - begin).toFixed(1);
  };

  const moveTo = (axis, value) => {
    cross[axis] = Math.max(0, Math.min(n[axis] - 1, Math.round(value)));
  };

  const make = (tag, className, parent) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    parent.append(element);
    return element;
  };

  const makePane = (plane, parent) => {
    const box = make("div", "pane", parent);
    box.style.aspectRatio = `${n[plane.u] * spec.spacing[plane.u]} / ${n[plane.v] * spec.spacing[plane.v]}`;
    const canvas = make("canvas", "", box);
    [canvas.width, canvas.height] = [n[plane.u], n[plane.v]];
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    const context = canvas.getContext("2d");
    const size = n[plane.u] * n[plane.v];
    const pane = {
      plane, canvas, context, image: context.createImageData(n[plane.u], n[plane.v]),
      levels: new Int16Array(size), other: new Int16Array(size),
      vertical: make("div", "hair vertical", box), horizontal: make("div", "hair horizontal", box),
      left: make("span", "side left", box), right: make("span", "side right", box),
    };
    const point = (event) => {
      const area = canvas.getBoundingClientRect();
      const x = ((event.clientX - area.left) / area.width) * n[plane.u] - 0.5;
      const mirror = plane.u === 0 && !neurological;
      moveTo(plane.u, mirror ? n[plane.u] - 1 - x : x);
      moveTo(plane.v, (1 - (event.clientY - area.top) / area.height) * n[plane.v] - 0.5);
      draw();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      point(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
    canvas.addEventListener("keydown", (event) => {
      const mirror = plane.u === 0 && !neurological ? -1 : 1;
      const steps = {
        ArrowLeft: [plane.u, -mirror], ArrowRight: [plane.u, mirror], ArrowUp: [plane.v, 1], ArrowDown: [plane.v, -1],
        PageUp: [plane.w, 1], PageDown: [plane.w, -1],
      };
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      moveTo(step[0], cross[step[0]] + step[1]);
      draw();
    });
    return pane;
  };

  const makeColumn = (number, start) => {
    const element = make("section", "column", byId("viewer"));
    const select = make("select", "", element);
    select.setAttribute("aria-label", `What column ${number + 1} shows`);
    spec.layers.forEach((layer, k) => {
      const option = make("option", "", select);
      [option.value, option.textContent] = [k, layer.name];
    });
    select.value = start;
    select.addEventListener("change", draw);
    const panes = planes.map((plane) => makePane(plane, element));
    const describe = () => panes.forEach((pane) =>
      pane.canvas.setAttribute("aria-label", `${pane.plane.name} cut, ${spec.layers[select.value].name}; arrow keys move the cross-hair`));
    select.addEventListener("change", describe);
    describe();
    const legend = make("div", "legend", element);
    const low = make("span", "", legend), bar = make("span", "bar", legend), high = make("span", "", legend);
    const reading = make("p", "reading", element);
    reading.append("At the cross-hair: ");
    const value = make("output", "", reading);
    const what = make("p", "what", element);
    columns.push({ element, select, panes, low, bar, high, value, what, describe });
  };

  const start = async () => {
    await Promise.all(spec.layers.map(async (layer) => {
      layer.levels = summed(await unpacked(layer.bytes), layer.shape[2]);
      delete layer.bytes;
    }));
    makeTables();
    spec.sets[0].columns.forEach((layer, k) => makeColumn(k, layer));
    spec.sets.forEach((set, k) => {
      const button = make("button", "", byId("sets"));
      button.type = "button";
      button.textContent = set.name;
      button.setAttribute("aria-pressed", String(k === 0));
      button.addEventListener("click", () => {
        set.columns.forEach((layer, c) => { columns[c].select.value = layer; columns[c].describe(); });
        for (const one of byId("sets").children) one.setAttribute("aria-pressed", String(one === button));
        draw();
      });
    });
    planes.forEach((plane) => {
      const slider = byId(`slide-${plane.name}`);
      slider.max = n[plane.w] - 1;
      slider.addEventListener("input", () => { moveTo(plane.w, slider.valueAsNumber); draw(); });
    });
    byId("window").addEventListener("input", () => { makeTables(); draw(); });
    byId("difference").addEventListener("change", (event) => { difference = event.target.checked; draw(); });
    byId("hair").addEventListener("change", (event) => { byId("viewer").classList.toggle("bare", !event.target.checked); });
    byId("sides").addEventListener("change", (event) => { neurological = event.target.value === "neurological"; draw(); });
    window.addEventListener("resize", draw);
    draw();
    byId("loading").remove();
    document.body.dataset.ready = "true";
  };

  start().catch((error) => {
    byId("loading").textContent = `The images could not be unpacked (${error.message}): open this file in a current browser.`;
  });
})();
