// Makes one measurement, with one thread count and one set of inputs. It runs in a worker, so that the page
// stays responsive and each measurement starts with a new ONNX Runtime and its own memory.

import * as ort from "./ort.wasm.bundle.min.mjs";

const ROUNDS = 10;
const MIN_RUNS = 5;
const MAX_RUNS = 5000;
const MAX_SAMPLES = 200;
const BUDGET_S = 5;
const MAX_EVENTS = 20000; // about 50 MB in a browser
const WARM_MIN = 3;
const WARM_WINDOW_S = 0.3;
const WARM_MAX_S = 10;
const WARM_GAIN = 0.95;
const TICKS_PER_SAMPLE = 50;
const KERNEL_SUFFIX = "_kernel_time";
const EXECUTE = "SequentialExecutor::Execute";

// ONNX Runtime prints its profile line by line with console.log, which must be replaced before the first session.
let events = [];
console.log = (line) => {
  if (typeof line === "string" && line.startsWith("{")) {
    const { name, ts, dur, args } = JSON.parse(line.replace(/,$/, ""));
    events.push({ name, ts, dur, op: args.op_name, index: args.node_index });
  }
};

self.onmessage = async ({ data: work }) => {
  try {
    self.postMessage({ measurement: await measure(work), version: ort.env.versions.web });
  } catch (error) {
    self.postMessage({ failure: String(error?.message ?? error) });
  }
};

async function measure(work) {
  ort.env.wasm.numThreads = work.threads;
  ort.env.wasm.wasmBinary = await work.wasm.arrayBuffer();
  ort.env.logLevel = "fatal";
  const tick = clockTick_s();
  tell(0, "loading the model");
  const [plain, profiled, nothing] = [
    await open(work.model, work.data, false),
    await open(work.model, work.data, true),
    await open(work.nothing, [], false),
  ];
  const feeds = await tensors(work.feeds);
  const nothingFeeds = { x: new ort.Tensor("float32", new Float32Array(1), [1]) };

  tell(0.1, "warming up");
  const { warmup, run_s } = await warmUp(plain, feeds);
  for (let count = 0; count < WARM_MIN; count++) await profiled.run(feeds);
  const { run_s: nothing_s } = await warmUp(nothing, nothingFeeds);

  const wanted = work.runs ?? within(BUDGET_S / (2 * run_s), MIN_RUNS, MAX_RUNS);
  const affordable = within(MAX_EVENTS / work.nodes, MIN_RUNS, Infinity);
  const rounds = Math.min(ROUNDS, wanted, affordable);
  const together = Math.max(batch(tick, run_s), Math.ceil(wanted / MAX_SAMPLES));
  const times = Math.ceil(wanted / rounds / together); // in each round
  const profiledRuns = Math.floor(Math.min(times * together, affordable / rounds));
  const samples = { warmup, whole_s: [], profiled_whole_s: [], fixed_s: [] };
  for (let round = 0; round < rounds; round++) {
    tell(0.3 + (0.7 * round) / rounds, `${rounds * times * together} runs of about ${milliseconds(run_s)} ms`);
    samples.profiled_whole_s.push(await time_s(profiled, feeds, profiledRuns));
    for (let time = 0; time < times; time++) samples.whole_s.push(await time_s(plain, feeds, together));
    samples.fixed_s.push(await time_s(nothing, nothingFeeds, batch(tick, nothing_s)));
  }
  events = [];
  profiled.endProfiling();
  return { threads: work.threads, dims: work.dims, ...samples, nodes: nodeTimes(splitRuns(events), rounds, profiledRuns) };
}

const milliseconds = (seconds) => (seconds * 1e3).toPrecision(3);

function tell(done, text) {
  self.postMessage({ done, text });
}

async function open(model, data, enableProfiling) {
  // The bytes are read again for each session, so that only the runtime keeps a copy while it runs.
  const bytes = new Uint8Array(await model.arrayBuffer());
  const externalData = await Promise.all(
    data.map(async ({ path, blob }) => ({ path, data: new Uint8Array(await blob.arrayBuffer()) })),
  );
  const session = await ort.InferenceSession.create(bytes, {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
    logSeverityLevel: 4,
    enableProfiling,
    externalData,
  });
  // All outputs are computed, but outputs that are not tensors (as in models from scikit-learn) cannot be fetched.
  const fetched = session.outputMetadata.filter((output) => output.isTensor).map((output) => output.name);
  if (!fetched.length) throw new Error("it returns no tensors, but ONNX Runtime in a browser can return only tensors");
  return { run: (feeds) => session.run(feeds, fetched), endProfiling: () => session.endProfiling() };
}

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, bool: Uint8Array,
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
};

async function tensors(feeds) {
  const made = {};
  for (const { name, type, dims, texts, blob } of feeds) {
    made[name] = new ort.Tensor(type, texts ?? new ARRAYS[type](await blob.arrayBuffer()), dims);
  }
  return made;
}

// --- the clock ---

// Without cross-origin isolation, the clock has a resolution of 0.1 ms or 1 ms; then several runs are timed together.
function clockTick_s() {
  let [tick, last] = [Infinity, performance.now()];
  for (let steps = 0; steps < 20; ) {
    const now = performance.now();
    if (now > last) {
      tick = Math.min(tick, now - last);
      last = now;
      steps++;
    }
  }
  return tick / 1e3;
}

const batch = (tick_s, run_s) => Math.max(1, Math.ceil((TICKS_PER_SAMPLE * tick_s) / run_s));

const within = (value, low, high) => Math.floor(Math.max(low, Math.min(high, value)));

async function time_s(session, feeds, runs) {
  const start = performance.now();
  for (let count = 0; count < runs; count++) await session.run(feeds);
  return (performance.now() - start) / 1e3 / runs;
}

// Browsers compile WebAssembly quickly at first and optimise it later: continue until runs no longer get faster.
async function warmUp(session, feeds) {
  const begin = performance.now();
  let [warmup, run_s, before_s] = [0, Infinity, Infinity];
  do {
    const start = performance.now();
    let [runs, spent_s] = [0, 0];
    while (runs < WARM_MIN || spent_s < WARM_WINDOW_S) {
      await session.run(feeds);
      runs++;
      spent_s = (performance.now() - start) / 1e3;
    }
    [before_s, run_s, warmup] = [run_s, spent_s / runs, warmup + runs];
  } while (run_s < WARM_GAIN * before_s && performance.now() - begin < WARM_MAX_S * 1e3);
  return { warmup, run_s };
}

// --- from events to nodes ---

// The events of each run, ordered by the time at which they end; the Execute event of the main graph is the last.
function splitRuns(all) {
  const runs = [];
  let current = [];
  for (const event of all) {
    if (event.name === "model_run") {
      runs.push(current.slice(0, -1));
      current = [];
    } else if (event.name === EXECUTE || event.name.endsWith(KERNEL_SUFFIX)) {
      current.push(event);
    }
  }
  return runs;
}

const identity = (event) => `${event.index} ${event.op} ${event.name}`;

// Nodes outside the bodies of If, Loop and Scan. A body has its own Execute event within the event of its node.
function outerNodes(events) {
  const found = [];
  for (const event of events) {
    if (event.name !== EXECUTE) found.push(event);
    else while (found.length && found.at(-1).ts >= event.ts) found.pop();
  }
  return found.map(identity);
}

// The mean over the runs of each round: with a coarse clock, most nodes of a single run take 0 or 1 tick.
function nodeTimes(allRuns, rounds, runsPerRound) {
  const runs = allRuns.slice(-rounds * runsPerRound);
  // With a coarse clock, a node may seem to be inside the body that follows it: it is outside if any run shows it so.
  const outer = new Set(runs.flatMap(outerNodes));
  const nodes = new Map();
  runs.forEach((events, run) => {
    let inside = 0;
    for (const event of events) {
      const key = identity(event);
      if (!outer.has(key)) {
        inside++;
        continue;
      }
      if (!nodes.has(key)) {
        const name = event.name.slice(0, -KERNEL_SUFFIX.length);
        nodes.set(key, { name, op: event.op, inputs: [], outputs: [], seconds: Array(rounds).fill(0), events: 1 });
      }
      const node = nodes.get(key);
      node.seconds[Math.floor(run / runsPerRound)] += event.dur / 1e6 / runsPerRound;
      node.events = 1 + inside;
      inside = 0;
    }
  });
  return [...nodes.values()];
}
