// The page of the service: images in, predictions out. It asks only the service that it came from.
const $ = (id) => document.getElementById(id);
const AT_ONCE = 8; // images in one request
const TRIES = 30; // of a request that was turned away for now
const images = []; // {file, url, row, heat}: what was given, and what the service said of it
let card = null;
let shown = null;
let waiting = Promise.resolve(); // one request after another

class Problem extends Error {}

async function ask(path, options = {}) {
  const headers = $("key").value ? { "X-API-Key": $("key").value } : {};
  for (let tries = 1; ; tries++) {
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Problem("The service does not answer.");
    }
    if (response.status === 503 && tries < TRIES) {
      $("status").textContent = "The service is busy; trying again …";
      await new Promise((go) => setTimeout(go, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
      continue;
    }
    const content = await response.json().catch(() => ({ error: `The service answered ${response.status}.` }));
    if (response.status === 401) $("locked").hidden = false;
    if (!response.ok && !content.predictions) throw new Problem(content.error);
    return content;
  }
}

const percent = (p) => `${(100 * p).toFixed(1)} %`;

function top(row) {
  const all = row.top ?? Object.entries(row.probabilities ?? {}).map(([name, p]) => ({ class: name, probability: p }));
  return all.slice(0, 5);
}

function verdict(row) {
  if (row.labels) return row.labels.join("; ") || "no label";
  return row.top ? row.top[0].class : `embedding of ${row.embedding.length} numbers`;
}

function element(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Sends images in groups that fit the limits.
function groups(list) {
  const found = [];
  let bytes = 0;
  for (const one of list) {
    const last = found.at(-1);
    if (!last || last.length >= Math.min(AT_ONCE, card.limits.images) || bytes + one.file.size > card.limits.request_bytes / 2) {
      found.push([one]);
      bytes = 0;
    } else last.push(one);
    bytes += one.file.size;
  }
  return found;
}

function form(list) {
  const made = new FormData();
  for (const { file } of list) made.append("images", file, file.name);
  return made;
}

async function classify(list) {
  let done = 0;
  for (const some of groups(list)) {
    $("status").textContent = list.length > 1 ? `${done} of ${list.length} images` : "…";
    try {
      if (some.length === 1 && some[0].file.size > card.limits.image_bytes) {
        some[0].row = { error: `has ${some[0].file.size} bytes, more than the limit of ${card.limits.image_bytes}` };
      } else {
        const content = await ask(`/models/${card.name}/predict?top=5`, { method: "POST", body: form(some) });
        content.predictions.forEach((row, i) => { some[i].row = row; });
        $("note").textContent = content.notes.join(" ");
      }
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      $("problem").textContent = error.message;
      some.forEach((one) => { one.row = { error: error.message }; });
    }
    done += some.length;
    draw();
  }
  $("status").textContent = "";
}

function add(files) {
  const list = [...files].map((file) => ({ file, url: URL.createObjectURL(file), row: null, heat: null }));
  if (!list.length) return;
  $("problem").textContent = "";
  images.push(...list);
  shown = list[0];
  draw();
  waiting = waiting.then(() => classify(list.filter((one) => images.includes(one))));
}

function draw() {
  $("several").hidden = images.length < 2;
  $("clear").hidden = !images.length;
  $("save").hidden = !images.some((one) => one.row);
  $("detail").hidden = !shown;
  $("rows").replaceChildren(...images.map(line));
  if (shown) detail(shown);
}

function line(one) {
  const row = element("tr");
  const name = element("button", undefined, { type: "button", onclick: () => { shown = one; draw(); $("detail").scrollIntoView({ block: "nearest" }); } });
  if (one === shown) name.setAttribute("aria-current", "true");
  const small = element("img", undefined, one.unseen ? { alt: "" } : { src: one.url, alt: "" });
  small.addEventListener("error", () => { one.unseen = true; small.removeAttribute("src"); }); // the service may read it
  name.append(small, element("span", one.file.name));
  row.append(element("td", undefined, { className: "text" }));
  row.firstChild.append(name);
  if (!one.row) row.append(element("td", "…", { className: "text" }), element("td"));
  else if (one.row.error) row.append(element("td", one.row.error, { className: "text warning", colSpan: 2 }));
  else {
    row.append(element("td", verdict(one.row), { className: "text" }));
    const first = top(one.row)[0];
    row.append(element("td", first ? percent(first.probability) : ""));
  }
  return row;
}

function detail(one) {
  $("name").textContent = one.file.name;
  if ($("image").src !== one.url) {
    $("image").hidden = false;
    $("image").src = one.url;
  }
  $("image").alt = one.file.name;
  const row = one.row;
  if (!row) $("bars").replaceChildren();
  else if (row.error) $("bars").replaceChildren(element("li", row.error, { className: "warning" }));
  else if (!row.top && !row.probabilities) $("bars").replaceChildren(element("li", verdict(row)));
  else {
    $("bars").replaceChildren(...top(row).map((best) => {
      const item = element("li");
      const bar = element("i");
      bar.style.setProperty("--share", best.probability);
      item.append(element("b", best.class), element("span", percent(best.probability)), bar);
      return item;
    }));
  }
  const wanted = $("heat").checked && row && !row.error;
  $("overlay").hidden = !(wanted && one.heat);
  if (wanted && one.heat) {
    $("map").src = one.heat.overlay;
    $("map").alt = `Evidence for ${one.heat.class}`;
    $("caption").textContent = `Grad-CAM: bright where there is evidence for ${one.heat.class}`;
  } else if (wanted && !one.asked) {
    one.asked = true;
    waiting = waiting.then(() => explain(one));
  }
}

async function explain(one) {
  $("status").textContent = "Computing the heat map …";
  try {
    const content = await ask(`/models/${card.name}/predict?attribution=gradcam`, { method: "POST", body: form([one]) });
    one.heat = content.predictions[0].attribution ?? null;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    one.asked = false;
    $("heat").checked = false;
    $("problem").textContent = error.message;
  }
  $("status").textContent = "";
  draw();
}

function clear() {
  images.forEach((one) => URL.revokeObjectURL(one.url));
  images.length = 0;
  shown = null;
  $("problem").textContent = "";
  draw();
}

// One line per image, as `inceptionnet predict --csv` writes them.
function table() {
  const rows = images.filter((one) => one.row).map((one) => one.row);
  const several = rows.some((row) => row.labels);
  const most = Math.max(0, ...rows.map((row) => (row.top ?? []).length));
  const ranks = Array.from({ length: most }, (_, i) => [`class_${i + 1}`, `probability_${i + 1}`]).flat();
  const columns = several ? ["labels", ...card.classes.map((name) => `probability_${name}`)] : ranks;
  const lines = images.filter((one) => one.row).map(({ file, row }) => [file.name, row.error ?? "", ...cells(row, several)]);
  return [["file", "error", ...columns], ...lines].map((cols) => cols.map(quoted).join(",")).join("\r\n") + "\r\n";
}

function cells(row, several) {
  if (row.error) return [];
  if (several) return [row.labels.join(";"), ...card.classes.map((name) => row.probabilities[name].toFixed(6))];
  return (row.top ?? []).flatMap((best) => [best.class, best.probability.toFixed(6)]);
}

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function save() {
  const url = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  element("a", "", { href: url, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function camera() {
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    $("problem").textContent = "The camera cannot be used: there is none, or the browser was not allowed to.";
    return;
  }
  $("viewfinder").hidden = false;
  await $("video").play();
  $("shoot").focus();
}

function shoot() {
  const canvas = element("canvas", undefined, { width: $("video").videoWidth, height: $("video").videoHeight });
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  const name = `camera ${new Date().toISOString().slice(0, 19).replaceAll(":", ".")}.jpg`;
  canvas.toBlob((blob) => blob && add([new File([blob], name, { type: "image/jpeg" })]), "image/jpeg", 0.95);
}

function stop() {
  $("video").srcObject?.getTracks().forEach((track) => track.stop());
  $("video").srcObject = null;
  $("viewfinder").hidden = true;
  $("camera").focus();
}

async function choose(name) {
  card = await ask(`/models/${name}`);
  const { preprocessing: prep, limits } = card;
  $("network").textContent = `${card.network}, ${card.classes.length} classes`;
  $("limits").textContent = `up to ${(limits.image_bytes / 2 ** 20).toFixed(0)} MiB each; nothing is kept`;
  $("heat").disabled = !card.attribution;
  if (!card.attribution) $("heat").checked = false;
  const plain = (value) => typeof value === "number" ? String(Number(value.toPrecision(4))) : (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  const shownClasses = card.classes.slice(0, 50).join(", ") + (card.classes.length > 50 ? ` and ${card.classes.length - 50} more` : "");
  const facts = {
    Model: card.name, Network: card.network, Classes: shownClasses || "none: it gives embeddings", Activation: card.activation,
    "Image size": `${prep.size_px} px, ${prep.resize}, crop ${prep.crop}, ${prep.interpolation}`,
    Engine: `${card.engine}, ${card.precision}, ${card.device}`,
    Assumed: card.assumed, ...Object.fromEntries(Object.entries(card.provenance).map(([key, value]) => [key, plain(value)])),
  };
  $("facts").replaceChildren(...Object.entries(facts).filter(([, text]) => text).flatMap(([key, text]) => [element("dt", key), element("dd", text)]));
}

async function start() {
  $("problem").textContent = "";
  try {
    const { models, default: first } = await ask("/models");
    $("locked").hidden = !$("key").value;
    $("model").replaceChildren(...models.map(({ name }) => element("option", name, { value: name })));
    $("choice").hidden = models.length < 2;
    $("model").value = first;
    await choose(first);
    $("status").textContent = "";
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    $("problem").textContent = error.message;
  }
}

async function again() {
  for (const one of images) Object.assign(one, { row: null, heat: null, asked: false });
  draw();
  await classify([...images]);
}

$("image").addEventListener("error", () => { $("image").hidden = true; });
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("files").addEventListener("change", () => { add($("files").files); $("files").value = ""; });
$("model").addEventListener("change", () => { waiting = waiting.then(() => choose($("model").value)).then(again); });
$("heat").addEventListener("change", draw);
$("key").addEventListener("change", start);
$("clear").addEventListener("click", clear);
$("save").addEventListener("click", save);
$("camera").addEventListener("click", camera);
$("shoot").addEventListener("click", shoot);
$("stop").addEventListener("click", stop);
$("camera").hidden = !navigator.mediaDevices?.getUserMedia;
document.addEventListener("paste", (event) => add([...event.clipboardData.files]));
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); add([...event.dataTransfer.files]); });
start();
