/**
 * What the service counts, in Prometheus' text format 0.0.4: requests, their durations, images by answer, the queue.
 * It holds no id of a caller and no path, only routes, so that its size is bounded.
 */

const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

interface Histogram {
  counts: number[];
  sum: number;
  count: number;
}

/** A number read when metrics are asked for. */
export interface Gauge {
  name: string;
  help: string;
  read: () => number;
}

export interface Metrics {
  request(method: string, route: string, status: number, seconds: number): void;
  /** An image or a row of activations that was scored, by the answer it got. */
  answer(answer: string): void;
  encoded(seconds: number): void;
  text(): string;
}

/** Counters of this process (on Workers: of this isolate), from its start. */
export function createMetrics(gauges: readonly Gauge[] = []): Metrics {
  const requests = new Map<string, number>(), answers = new Map<string, number>();
  const durations = new Map<string, Histogram>(), encoding = histogram();
  const add = (map: Map<string, number>, key: string) => void map.set(key, (map.get(key) ?? 0) + 1);

  return {
    request(method, route, status, seconds) {
      add(requests, labels({ method, route, status }));
      let times = durations.get(route);
      if (!times) durations.set(route, times = histogram());
      observe(times, seconds);
    },
    answer: (answer) => add(answers, labels({ answer })),
    encoded: (seconds) => observe(encoding, seconds),
    text() {
      const lines = [
        ...family("afterimage_requests_total", "counter", "Requests answered."),
        ...[...requests].map(([key, n]) => `afterimage_requests_total{${key}} ${n}`),
        ...family("afterimage_request_seconds", "histogram", "From a request's head to its answer's."),
        ...[...durations].flatMap(([route, times]) =>
          histogramLines("afterimage_request_seconds", times, labels({ route }))
        ),
        ...family("afterimage_encode_seconds", "histogram", "The encoder's time for one image."),
        ...histogramLines("afterimage_encode_seconds", encoding),
        ...family("afterimage_answers_total", "counter", "Images and rows scored, by answer."),
        ...[...answers].map(([key, n]) => `afterimage_answers_total{${key}} ${n}`),
        ...gauges.flatMap(({ name, help, read }) => [...family(name, "gauge", help), `${name} ${read()}`]),
      ];
      return lines.join("\n") + "\n";
    },
  };
}

const histogram = (): Histogram => ({ counts: BUCKETS.map(() => 0), sum: 0, count: 0 });

function observe(times: Histogram, seconds: number): void {
  const at = BUCKETS.findIndex((bound) => seconds <= bound);
  if (at >= 0) times.counts[at]++;
  times.sum += seconds;
  times.count++;
}

const family = (name: string, type: string, help: string): string[] => [
  `# HELP ${name} ${help}`,
  `# TYPE ${name} ${type}`,
];

/** Values are our own routes, methods and answers, but a method can be anything a client sends. */
const labels = (pairs: Record<string, string | number>): string =>
  Object.entries(pairs).map(([name, value]) => `${name}="${String(value).replace(/[^\w/:{}.*-]/g, "_")}"`)
    .join(",");

function histogramLines(name: string, { counts, sum, count }: Histogram, key = ""): string[] {
  const with_ = (more: string) => [key, more].filter(Boolean).join(",");
  let below = 0;
  const buckets = BUCKETS.map((bound, i) =>
    `${name}_bucket{${with_(`le="${bound}"`)}} ${below += counts[i]}`
  );
  const tail = key && `{${key}}`;
  return [
    ...buckets,
    `${name}_bucket{${with_('le="+Inf"')}} ${count}`,
    `${name}_sum${tail} ${sum}`,
    `${name}_count${tail} ${count}`,
  ];
}
