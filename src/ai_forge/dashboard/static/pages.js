// The three things that a page cannot do without a script: follow a run, follow an answer, draw a curve.
"use strict";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function drawCurve(place, curve) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const options = {
    width: place.clientWidth, height: 260, scales: { x: { time: false } },
    axes: [{ ...axis, label: "step", incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] }, { ...axis, label: "loss (nats per token)" }],
    series: [
      { label: "step" },
      { label: "training", stroke: colour("--accent"), width: 1.5, spanGaps: true },
      { label: "held-out", stroke: colour("--warn"), width: 2, spanGaps: true, points: { show: true, size: 7 } },
    ],
  };
  const plot = new uPlot(options, aligned(curve), place);
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 260 })).observe(place);
  return plot;
}

// uPlot wants one row of steps for both curves
function aligned({ losses, held_out: heldOut }) {
  const steps = [...new Set([...losses, ...heldOut].map(([step]) => step))].sort((a, b) => a - b);
  const column = (rows) => { const by = new Map(rows); return steps.map((step) => by.get(step) ?? null); };
  return [steps, column(losses), column(heldOut)];
}

function followRun(run) {
  const curve = JSON.parse(run.dataset.curve);
  const connection = document.getElementById("connection");
  const plot = drawCurve(document.getElementById("curve"), curve);
  // the browser connects again by itself, and says by Last-Event-ID what it has heard
  const stream = new EventSource(`${run.dataset.stream}?after=${run.dataset.from}`);
  stream.onopen = () => { connection.textContent = "Connected: this page moves with the run."; };
  stream.onerror = () => { connection.textContent = "Not connected; trying again."; };
  stream.addEventListener("view", (event) => {
    const { html, losses, held_out: heldOut } = JSON.parse(event.data);
    document.getElementById("run-live").innerHTML = html;
    curve.losses.push(...losses);
    curve.held_out.push(...heldOut);
    plot.setData(aligned(curve));
  });
}

// An answer comes as lines of JSON: {"html"} replaces, {"text"} is added, {"error"} ends it.
async function follow(path, form, place) {
  const response = await fetch(path, { method: "POST", body: form, headers: { "X-CSRF-Token": form.get("csrf") } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "", text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (waiting + value).split("\n");
    waiting = lines.pop();
    for (const line of lines.filter(Boolean)) {
      const piece = JSON.parse(line);
      if (piece.text) { text += piece.text; place.querySelector(".answer").textContent = text; }
      if (piece.found) place.querySelector(".found").innerHTML = piece.found;
      if (piece.html) place.querySelector(".answer").innerHTML = piece.html;
      if (piece.error) { const said = place.querySelector(".said"); said.textContent = piece.error; said.className = "said bad"; }
    }
  }
  if (!response.ok && !text) place.querySelector(".said").textContent = `The service answered ${response.status}.`;
  return text;
}

function turn(title, kind = "") {
  const element = document.createElement("div");
  element.className = `turn ${kind}`;
  element.innerHTML = '<strong></strong><div class="found quiet"></div><div class="answer"></div><p class="said"></p>';
  element.querySelector("strong").textContent = title;
  return element;
}

function startChat(form) {
  const turns = document.getElementById("turns"), question = form.elements.question;
  let history = [];
  document.getElementById("anew").onclick = () => { history = []; turns.replaceChildren(); question.focus(); };
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); form.requestSubmit(); }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = question.value.trim(), button = form.querySelector("button.main");
    if (!asked || button.disabled) return;
    const body = new FormData(form);
    body.set("history", JSON.stringify(history));
    const user = turn("You", "user"), reply = turn(form.elements.model.value);
    user.querySelector(".answer").textContent = asked;
    turns.append(user, reply);
    question.value = "";
    button.disabled = true;
    const answer = await follow(form.dataset.path, body, reply).catch((error) => { reply.querySelector(".said").textContent = String(error); });
    button.disabled = false;
    if (answer) history.push({ role: "user", content: asked }, { role: "assistant", content: answer });
    question.focus();
  });
}

function startCompare(form) {
  const answers = document.getElementById("answers");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button.main");
    button.disabled = true;
    const sides = ["left", "right"].map((side) => {
      const body = new FormData(form);
      body.set("model", form.elements[side].value);
      const place = turn(form.elements[side].value);
      return { body, place };
    });
    answers.replaceChildren(...sides.map((side) => side.place));
    // one after the other: side by side they would share the processor, and neither time would be true
    for (const { body, place } of sides) await follow(form.dataset.path, body, place);
    button.disabled = false;
  });
}

const start = (id, begin) => { const element = document.getElementById(id); if (element) begin(element); };
start("run", followRun);
start("chat", startChat);
start("compare", startCompare);
