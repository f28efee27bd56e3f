// Files from the browser to the kernel, in pieces that any server's message limit lets through. The size is checked
// here, before anything is sent; a piece is sent when the kernel has taken the one before.
const PIECE = 1024 * 1024;
const PATIENCE = 20000; // milliseconds until a kernel that says nothing is taken for dead
const LOST = "The model has stopped answering: reload the page, then choose the file again. The session's list is lost.";

function megabytes(bytes) {
  return (bytes / 1024 / 1024).toFixed(bytes < 10 * 1024 * 1024 ? 1 : 0) + " MB";
}

function render({ model, el }) {
  const label = document.createElement("label"), input = document.createElement("input");
  const note = document.createElement("div"), lost = document.createElement("div");
  label.className = "xray-upload";
  for (const [name, text] of [["b", "Drop X-rays here, or choose files"], ["small", model.get("hint")]]) {
    label.append(Object.assign(document.createElement(name), { textContent: text }));
  }
  label.append(input);
  Object.assign(input, { type: "file", multiple: true });
  note.setAttribute("role", "status");
  note.className = "xray-upload-note";
  lost.setAttribute("role", "alert");
  el.append(lost, label, note);

  let waiting = [], refused = [], current = null, timer = 0;

  function say(text) {
    note.textContent = [text, ...refused].filter(Boolean).join(" ");
  }

  function giveUp() {
    clearTimeout(timer);
    [waiting, current] = [[], null];
    say("");
    lost.textContent = LOST;
    lost.className = "xray-banner xray-lost";
    input.disabled = true;
  }

  // Every message is answered at once, whatever the model is busy with.
  function tell(message, buffers) {
    clearTimeout(timer);
    timer = setTimeout(giveUp, PATIENCE);
    model.send(message, undefined, buffers);
  }

  async function sendPiece() {
    const { file, start, first } = current;
    let piece;
    try {
      piece = await file.slice(start, start + PIECE).arrayBuffer();
    } catch {
      refused.push(`${file.name} could not be read.`);
      next();
      return;
    }
    const last = start + piece.byteLength >= file.size;
    current.start += piece.byteLength;
    say(last ? "" : `Sending ${file.name}: ${Math.round((100 * start) / file.size)}%`);
    tell({ name: file.name, start, last, first }, [piece]);
  }

  function send() {
    sendPiece().catch(giveUp);
  }

  function next(first = false) {
    current = waiting.length ? { file: waiting.shift(), start: 0, first } : null;
    if (current) send();
    else { say(""); input.value = ""; }
  }

  function take(files) {
    const limit = model.get("limit"), most = model.get("most");
    const chosen = [...files];
    refused = chosen.filter((f) => f.size > limit).map(
      (f) => `${f.name} was not sent: it has ${megabytes(f.size)}, and at most ${megabytes(limit)} are taken.`);
    const fitting = chosen.filter((f) => f.size <= limit);
    if (waiting.length + fitting.length > most) {
      refused.push(`At most ${most} files at a time are taken; the others were not sent.`);
    }
    waiting.push(...fitting.slice(0, Math.max(0, most - waiting.length)));
    say("");
    if (!current) next(true);
  }

  model.on("msg:custom", (message) => {
    clearTimeout(timer);
    if (message.received) return;
    if (message.refused) { refused.push(message.refused); next(); }
    else if (current && current.start < current.file.size) send();
    else next();
  });
  input.addEventListener("change", () => take(input.files));
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    label.addEventListener(name, (event) => {
      event.preventDefault();
      label.classList.toggle("xray-over", name === "dragenter" || name === "dragover");
      if (name === "drop" && !input.disabled) take(event.dataTransfer.files);
    });
  }

  // A kernel that ended says so, in JupyterLab and on the page, before anything is asked of it.
  const kernel = model.widget_manager?.kernel;
  const onStatus = (_, status) => {
    if (["dead", "terminating", "autorestarting", "restarting", "disconnected"].includes(status)) giveUp();
  };
  kernel?.statusChanged.connect(onStatus);
  kernel?.connectionStatusChanged.connect(onStatus);
  return () => {
    clearTimeout(timer);
    kernel?.statusChanged.disconnect(onStatus);
    kernel?.connectionStatusChanged.disconnect(onStatus);
  };
}

export default { render };
