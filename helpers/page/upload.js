// Files from the browser to the kernel, in pieces that any server's message limit lets through. The size is checked
// here, before anything is sent; a piece is sent when the kernel has taken the one before.
const PIECE = 1024 * 1024;

function megabytes(bytes) {
  return (bytes / 1024 / 1024).toFixed(bytes < 10 * 1024 * 1024 ? 1 : 0) + " MB";
}

function render({ model, el }) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const note = document.createElement("div");
  label.className = "xray-upload";
  label.append("Upload images (or drop them here): ", input);
  Object.assign(input, { type: "file", multiple: true, accept: model.get("accept") });
  note.setAttribute("role", "status");
  note.className = "xray-upload-note";
  el.append(label, note);

  let waiting = [], refused = [], current = null;

  function say(text) {
    note.textContent = [text, ...refused].filter(Boolean).join(" ");
  }

  async function sendPiece() {
    const { file, start, first } = current;
    const piece = await file.slice(start, start + PIECE).arrayBuffer();
    const last = start + piece.byteLength >= file.size;
    current.start += piece.byteLength;
    say(last ? "" : `Sending ${file.name}: ${Math.round((100 * start) / file.size)}%`);
    model.send({ name: file.name, start, last, first }, undefined, [piece]);
  }

  function send() {
    sendPiece().catch(() => { refused.push(`${current.file.name} could not be read.`); next(); });
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
    if (message.refused) { refused.push(message.refused); next(); }
    else if (current && current.start < current.file.size) send();
    else next();
  });
  input.addEventListener("change", () => take(input.files));
  label.addEventListener("dragover", (event) => event.preventDefault());
  label.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files); });
}

export default { render };
