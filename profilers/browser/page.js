// Fetches the job from splitc, measures it in workers and sends the profile back.

const HEARTBEAT_MS = 1000;
const FETCHING = 0.1; // share of the progress bar

const element = (id) => document.getElementById(id);
let status = { done: 0, text: "loading" };
let worker = null;
let over = false;

function show(done, text) {
  status = { done, text };
  element("bar").value = done;
  element("detail").textContent = text[0].toUpperCase() + text.slice(1);
}

function end(kind, title, detail, note) {
  over = true;
  worker?.terminate();
  document.body.className = kind;
  element("title").textContent = title;
  element("detail").textContent = detail;
  element("note").textContent = note;
}

async function post(path, value) {
  return fetch(path, { method: "POST", body: JSON.stringify(value) });
}

// Without messages, splitc assumes that the page was closed; without answers, the page assumes that splitc has ended.
async function heartbeat() {
  for (let missed = 0; !over; ) {
    const answer = await post("progress", status).catch(() => null);
    missed = answer?.ok ? 0 : missed + 1;
    if (missed === 5 && !over) {
      end("failed", "splitc has ended", "The computer no longer answers.", "You can close this page.");
    }
    await new Promise((resolve) => setTimeout(resolve, HEARTBEAT_MS));
  }
}

async function download(files) {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let got = 0;
  const blobs = new Map();
  for (const { url } of files) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`the computer answered ${answer.status} to ${url}`);
    const counter = new TransformStream({
      transform(chunk, controller) {
        got += chunk.byteLength;
        show((FETCHING * got) / total, `fetching ${megabytes(got)} of ${megabytes(total)} MB`);
        controller.enqueue(chunk);
      },
    });
    blobs.set(url, await new Response(answer.body.pipeThrough(counter)).blob());
  }
  return (url) => blobs.get(url);
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

function measure(work, tell) {
  return new Promise((resolve, reject) => {
    worker = new Worker("worker.js", { type: "module" });
    worker.onmessage = ({ data }) => {
      if (data.measurement) resolve(data);
      else if (data.failure !== undefined) reject(new Error(data.failure));
      else tell(data.done, data.text);
    };
    worker.onerror = (event) => reject(new Error(event.message || "the browser cannot run the worker of this page"));
    worker.postMessage(work);
  }).finally(() => worker.terminate());
}

async function profile(job) {
  const file = await download(job.files);
  const data = job.data.map(({ path, url }) => ({ path, blob: file(url) }));
  const shared = { wasm: file(job.wasm), model: file(job.model), nothing: file(job.nothing), data, runs: job.runs, nodes: job.nodes };
  // Without cross-origin isolation there is no shared memory, hence one thread.
  const counts = globalThis.crossOriginIsolated ? job.threads : [1];
  const planned = counts.flatMap((threads) => job.sizings.map((sizing) => ({ threads, ...sizing })));
  const measurements = [];
  let version = null;
  for (const [number, { threads, dims, feeds }] of planned.entries()) {
    const which = `measurement ${number + 1} of ${planned.length}, ${threads} thread${threads === 1 ? "" : "s"}`;
    const filled = feeds.map((feed) => ({ ...feed, blob: feed.url && file(feed.url) }));
    const made = await measure({ ...shared, threads, dims, feeds: filled }, (done, text) =>
      show(FETCHING + ((1 - FETCHING) * (number + done)) / planned.length, `${which}: ${text}`),
    );
    measurements.push(made.measurement);
    version = made.version;
  }
  return {
    splitc_profile: 1,
    model: job.sha256,
    source: "measured",
    runtime: "onnxruntime-web",
    runtime_version: version,
    provider: "wasm",
    machine: {
      system: navigator.userAgentData?.platform || navigator.platform || null,
      machine: null,
      processor: navigator.userAgent,
      cores: navigator.hardwareConcurrency ?? null,
      python: null,
    },
    measurements,
    units: null,
  };
}

async function main() {
  heartbeat();
  // This works only with https or localhost; otherwise the user has to keep the screen on.
  navigator.wakeLock?.request("screen").catch(() => null);
  try {
    const job = await (await fetch("job.json")).json();
    element("title").textContent = "Profiling";
    element("model").textContent = job.name;
    const document_ = await profile(job);
    show(1, "sending the result");
    const answer = await post("result", document_);
    if (!answer.ok) throw new Error(await answer.text());
    end("done", "Done", "The computer has the result.", "You can close this page.");
  } catch (error) {
    if (over) return;
    const sentence = error.message || String(error);
    await post("failure", { sentence }).catch(() => null);
    end("failed", "Profiling failed", sentence, "The computer has received this message. You can close this page.");
  }
}

main();
