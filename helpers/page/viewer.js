// The image and its heatmap side by side: zoom, pan, window and level, what the model sees, and a report of it all.
// Nothing of this asks the kernel anything but for another method's heatmap and the next uncertain case.
const KEYS = [
  ["h", "heatmap on or off"], ["m", "what the model sees, or the original"], ["b / d", "brighter / darker"],
  ["c / x", "more / less contrast"], ["+ / -", "zoom"], ["arrows", "move the zoomed image"], ["r", "reset the view"],
  ["n", "next uncertain case"],
];
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function decode(bytes) {
  return bytes.byteLength ? createImageBitmap(new Blob([bytes], { type: "image/png" })) : null;
}

function canvasOf(width, height) {
  return make("canvas", { width, height });
}

function render({ model, el }) {
  const view = { zoom: 1, x: 0, y: 0, level: 128, width: 256, heat: true, model: false, opacity: 0.6, moving: false };
  const start = { ...view };
  let original = null, seen = null, base = null, other = null, heat = null, frame = 0, turns = 0;

  // Controls
  const toggle = (text, name, title) => make("button", {
    type: "button", title, "aria-pressed": String(view[name]), onclick: () => { view[name] = !view[name]; update(); },
  }, text);
  const range = (text, min, max, value, set) => {
    const input = make("input", { type: "range", min, max, value, "aria-label": text, oninput: () => { set(+input.value); update(); } });
    return [make("label", {}, text, input), input];
  };
  const button = (text, act, title = text) => make("button", { type: "button", title, "aria-label": title, onclick: act }, text);
  const heatButton = toggle("Heatmap", "heat", "Heatmap on or off (h)");
  const modelButton = toggle("What the model sees", "model", "What the model sees, or the original (m)");
  const moveButton = toggle("Drag moves", "moving", "Dragging moves the image instead of setting brightness and contrast");
  const method = make("select", { "aria-label": "Method of the heatmap", onchange: () => { model.set("method", method.value); model.save_changes(); } },
    ...model.get("methods").map((name) => make("option", { value: name }, name)));
  const [opacityLabel, opacity] = range("Opacity", 0, 100, 60, (value) => { view.opacity = value / 100; });
  const [brightLabel, bright] = range("Brightness", -127, 127, 0, (value) => { view.level = 128 - value; });
  const [contrastLabel, contrast] = range("Contrast", -100, 100, 0, (value) => { view.width = 256 * 2 ** (-value / 33); });
  const zoomed = make("span", { className: "xray-zoom" });
  const left = make("canvas", { role: "img" }), right = make("canvas", { role: "img" });
  const leftName = make("figcaption"), rightName = make("figcaption"), bar = canvasOf(256, 1);
  const legend = make("div", { className: "xray-colours" }, "little", bar, "much");
  const root = make("div", { className: "xray-viewer", tabIndex: 0, role: "group", "aria-label": "Image and heatmap" },
    make("div", { className: "xray-tools" }, heatButton, modelButton, method, opacityLabel),
    make("div", { className: "xray-panes" }, make("figure", {}, left, leftName), make("figure", {}, right, rightName)),
    legend,
    make("div", { className: "xray-tools" }, brightLabel, contrastLabel, moveButton,
      button("−", () => zoom(1 / 1.25), "Zoom out (-)"), zoomed, button("+", () => zoom(1.25), "Zoom in (+)"),
      button("Reset view", reset, "Reset view (r)")),
    make("div", { className: "xray-tools" }, button("Save report (HTML)", () => save("html")), button("Save picture (PNG)", () => save("png"))),
    make("details", {}, make("summary", {}, "Keys, while the focus is on this page's controls or pictures"),
      make("table", {}, ...KEYS.map(([key, what]) => make("tr", {}, make("td", {}, make("kbd", {}, key)), make("td", {}, what))))));
  el.append(root);

  // Drawing
  function windowed(bitmap) {
    const canvas = canvasOf(bitmap.width, bitmap.height), context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    if (view.level === start.level && view.width === start.width) return canvas;
    const table = Uint8ClampedArray.from({ length: 256 }, (_, grey) => 255 * ((grey - view.level) / view.width + 0.5));
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = table[pixels.data[i]];
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  function coloured(bytes) {
    if (!bytes.byteLength) return null;
    const values = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), size = Math.sqrt(values.length);
    const colours = new Uint8Array(model.get("colours").buffer, model.get("colours").byteOffset, 768);
    const canvas = canvasOf(size, size), context = canvas.getContext("2d"), pixels = context.createImageData(size, size);
    values.forEach((value, i) => pixels.data.set([...colours.subarray(3 * value, 3 * value + 3), value], 4 * i));
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  // Fits `picture` into a rectangle of `context`, zoomed and moved as the view is; the heatmap lies over the whole of it.
  function paint(context, picture, over, x, y, width, height, zoom = view.zoom, dx = view.x, dy = view.y) {
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.fillStyle = "#000";
    context.fillRect(x, y, width, height);
    const scale = zoom * Math.min(width / picture.width, height / picture.height);
    const box = [x + width / 2 + dx * width - scale * picture.width / 2, y + height / 2 + dy * height - scale * picture.height / 2,
      scale * picture.width, scale * picture.height];
    context.imageSmoothingQuality = "high";
    context.imageSmoothingEnabled = !(picture === other && scale > 1);
    context.drawImage(picture, ...box);
    context.imageSmoothingEnabled = true;
    context.globalAlpha = view.opacity;
    if (over) context.drawImage(over, ...box);
    context.restore();
  }

  function draw() {
    frame = 0;
    if (!original) return;
    const shape = clamp(original.width / original.height, 0.8, 1.5), ratio = Math.min(2, window.devicePixelRatio || 1);
    const over = view.heat && !model.get("hidden") ? heat : null;
    for (const [canvas, picture, covered] of [[left, base, null], [right, view.model ? other : base, over]]) {
      canvas.style.aspectRatio = String(shape);
      const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(width / shape));
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      paint(canvas.getContext("2d"), picture, covered, 0, 0, width, height);
    }
  }

  function describe() {
    const hidden = model.get("hidden"), name = model.get("method"), shown = view.heat && heat && !hidden;
    const what = view.model ? "what the model sees (224 px)".replace("224", other ? other.width : "") : "the image";
    const covered = shown ? `${name}: what spoke for pneumonia` : hidden ? "" : view.heat ? "the heatmap is being made …" : "heatmap off";
    leftName.textContent = "the image";
    rightName.textContent = [view.model || !covered ? what : "", covered].filter(Boolean).join(", ");
    left.setAttribute("aria-label", `the image${view.zoom > 1 ? ", zoomed" : ""}`);
    right.setAttribute("aria-label", shown ? `${what}, under the heatmap of ${name}` : what);
    right.parentNode.hidden = hidden; // nothing to see there before the reader has said what the image shows
    root.dataset.heat = shown ? name : "";
    legend.style.visibility = shown ? "visible" : "hidden";
  }

  // From the view to the controls and the pictures
  function update(anew = true) {
    if (anew && original) [base, other] = [windowed(original), windowed(seen)];
    for (const [control, name] of [[heatButton, "heat"], [modelButton, "model"], [moveButton, "moving"]]) {
      control.setAttribute("aria-pressed", String(view[name]));
    }
    opacity.value = 100 * view.opacity;
    bright.value = 128 - view.level;
    contrast.value = -33 * Math.log2(view.width / 256);
    zoomed.textContent = `${Math.round(100 * view.zoom)}%`;
    Object.assign(root.dataset, { zoom: view.zoom.toFixed(2), level: view.level.toFixed(0), width: view.width.toFixed(0), x: view.x.toFixed(3), y: view.y.toFixed(3) });
    for (const canvas of [left, right]) canvas.style.touchAction = view.moving ? "none" : "pan-y pinch-zoom";
    describe();
    frame = frame || requestAnimationFrame(draw);
  }

  function move(dx, dy) {
    const most = (view.zoom - 1) / 2;
    Object.assign(view, { x: clamp(view.x + dx, -most, most), y: clamp(view.y + dy, -most, most) });
    update(false);
  }

  function zoom(factor) {
    const before = view.zoom;
    view.zoom = clamp(view.zoom * factor, 1, 12);
    Object.assign(view, { x: view.x * view.zoom / before, y: view.y * view.zoom / before });
    move(0, 0);
  }

  function look(level, width) {
    Object.assign(view, { level: clamp(view.level + level, 1, 255), width: clamp(view.width * width, 32, 2048) });
    update();
  }

  function reset() {
    for (const name of ["zoom", "x", "y", "level", "width"]) view[name] = start[name];
    update();
  }

  for (const canvas of [left, right]) {
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      if (view.moving || event.shiftKey) move(event.movementX / canvas.clientWidth, event.movementY / canvas.clientHeight);
      else look(-event.movementY / 2, 2 ** (-event.movementX / 100));
    });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== root) return; // else the page could not be scrolled past it
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    }, { passive: false });
    canvas.addEventListener("dblclick", reset);
  }

  const actions = {
    h: () => { view.heat = !view.heat; update(); }, m: () => { view.model = !view.model; update(); },
    b: () => look(-8, 1), d: () => look(8, 1), c: () => look(0, 1 / 1.15), x: () => look(0, 1.15), "+": () => zoom(1.25),
    "=": () => zoom(1.25), "-": () => zoom(1 / 1.25), r: reset, n: () => model.send({ next: true }),
  };
  const arrows = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };

  function onKey(event) {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches("select, textarea, [contenteditable], [role=slider], input:not([type=range], [type=file])")) return;
    const act = target === root && arrows[event.key] ? () => move(...arrows[event.key]) : actions[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  // The keys work while the focus is anywhere on the page's widgets, and JupyterLab's own are kept out of there.
  let page = null;
  (function listen() {
    page = el.closest(".xray-page");
    if (!page) { requestAnimationFrame(listen); return; }
    page.dataset.lmSuppressShortcuts = "true";
    page.addEventListener("keydown", onKey);
  })();

  // The report: the pictures as they are looked at, in words what the page says
  function pictures(width) {
    const side = Math.floor((width - 20) / 2), canvas = canvasOf(width, side), context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, side);
    paint(context, base, null, 0, 0, side, side, 1, 0, 0);
    paint(context, base, heat, side + 20, 0, side, side, 1, 0, 0);
    return canvas;
  }

  function written() {
    const { file, answer, lines } = model.get("report");
    const made = `${new Date().toLocaleString()}. ${model.get("method")}: bright is what spoke for pneumonia.`;
    return { file, answer, lines: [...lines, made], caution: "Not a medical device; not for clinical use." };
  }

  function reportPage() {
    const { file, answer, lines, caution } = written(), page = document.implementation.createHTMLDocument(`${file}: ${answer}`);
    const add = (tag, text, more = {}) => page.body.append(Object.assign(page.createElement(tag), { textContent: text }, more));
    page.head.append(Object.assign(page.createElement("style"), { textContent: "body { font: 16px/1.5 sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; } img { width: 100%; }" }));
    page.documentElement.lang = "en";
    page.head.prepend(Object.assign(page.createElement("meta"), { name: "viewport", content: "width=device-width" }));
    const charset = page.createElement("meta");
    charset.setAttribute("charset", "utf-8");
    page.head.prepend(charset);
    add("h1", file);
    add("p", caution, { style: "font-weight: bold" });
    add("h2", answer);
    add("img", "", { src: pictures(1600).toDataURL("image/png"), alt: "the image, and the image under the heatmap" });
    lines.forEach((line) => add("p", line));
    return new Blob(["<!doctype html>\n", page.documentElement.outerHTML], { type: "text/html" });
  }

  function reportPicture() {
    const width = 1600, { file, answer, lines, caution } = written(), shown = pictures(width);
    const measure = canvasOf(1, 1).getContext("2d"), wrapped = [];
    for (const [text, font] of [[file, "bold 30px sans-serif"], [answer, "bold 26px sans-serif"], [caution, "bold 22px sans-serif"], ...lines.map((line) => [line, "22px sans-serif"])]) {
      measure.font = font;
      let line = "";
      for (const word of text.match(/\S{1,90}\s*/g) || []) {
        if (line && measure.measureText(line + word).width > width - 40) { wrapped.push([line, font]); line = ""; }
        line += word;
      }
      wrapped.push([line, font]);
    }
    const canvas = canvasOf(width, shown.height + 40 + 36 * wrapped.length), context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, canvas.height);
    context.drawImage(shown, 0, 0);
    context.fillStyle = "#000";
    wrapped.forEach(([line, font], i) => { context.font = font; context.fillText(line, 20, shown.height + 44 + 36 * i); });
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }

  async function save(kind) {
    const name = (model.get("report").file || "report").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 80);
    download(`${name}.${kind}`, kind === "html" ? reportPage() : await reportPicture());
  }

  // From the kernel to the pictures
  async function show() {
    const turn = ++turns, given = await Promise.all([decode(model.get("picture")), decode(model.get("seen"))]);
    if (turn !== turns) return; // another image was chosen meanwhile
    [original, seen] = given.every(Boolean) ? given : [null, null];
    root.style.display = original ? "" : "none";
    const reportable = Boolean(original && model.get("report").answer);
    for (const control of root.querySelectorAll(".xray-tools:last-of-type button, .xray-tools:first-child > *")) control.disabled = !reportable;
    method.value = model.get("method");
    if (original) update();
    for (const slider of page?.querySelectorAll("[role=slider]") || []) { // ipywidgets leaves them without a name
      slider.setAttribute("aria-label", slider.closest(".jupyter-widgets").querySelector("label").textContent);
    }
    if (original && document.activeElement === document.body) root.focus({ preventScroll: true }); // nobody's focus is lost
  }

  const context = bar.getContext("2d");
  const colours = new Uint8Array(model.get("colours").buffer, model.get("colours").byteOffset, 768);
  for (let i = 0; i < 256; i++) {
    context.fillStyle = `rgb(${colours.subarray(3 * i, 3 * i + 3).join(",")})`;
    context.fillRect(i, 0, 1, 1);
  }
  model.on("change:picture", () => {
    for (const name of ["zoom", "x", "y", "level", "width"]) view[name] = start[name];
    show();
  });
  model.on("change:heat", () => { heat = coloured(model.get("heat")); update(false); });
  for (const name of ["hidden", "report", "method", "seen"]) model.on(`change:${name}`, show);
  heat = coloured(model.get("heat"));
  const resized = new ResizeObserver(() => update(false));
  resized.observe(root);
  show();
  return () => { resized.disconnect(); if (page) page.removeEventListener("keydown", onKey); };
}

export default { render };
