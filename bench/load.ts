/**
 * Load: wrk, curl, and clients of our own for what those cannot do.
 *
 * @module
 */
import { must } from "../tests/support/process.ts";
import { ROOT } from "../tests/support/proxy_process.ts";
import { which } from "../tests/support/requirements.ts";
import type { Peer } from "./peers.ts";

/** What every request says of itself, as containerd does. Registries refuse who does not accept what they have. */
export const HEADERS: Readonly<Record<string, string>> = {
  "Accept": [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "*/*",
  ].join(", "),
  "User-Agent": "containerd/1.7.24",
};

/** What a load came to. */
export interface Load {
  readonly requests: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** Options for {@linkcode wrk}. */
export interface WrkOptions {
  readonly connections: number;
  readonly seconds: number;
  /** Asked for in turn. */
  readonly paths: readonly string[];
  /** Beside {@linkcode HEADERS}. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** GETs as fast as they are answered, by one thread of wrk. Throws where anything went wrong. */
export async function wrk(url: string, options: WrkOptions): Promise<Load> {
  const { connections, seconds, paths } = options;
  const script = await Deno.makeTempFile({ suffix: ".lua" });
  const list = paths.map((path) => JSON.stringify(path)).join(", ");
  const headers = Object.entries({ ...HEADERS, ...options.headers })
    .map(([name, value]) => `[${JSON.stringify(name)}] = ${JSON.stringify(value)}`).join(", ");
  await Deno.writeTextFile(
    script,
    `local requests, n = {}, 0
local headers = { ${headers} }
init = function(args)
  for i, path in ipairs({ ${list} }) do requests[i] = wrk.format("GET", path, headers) end
end
request = function()
  n = n % #requests + 1
  return requests[n]
end
done = function(summary)
  local e = summary.errors
  io.write(string.format('JSON{"requests":%d,"bytes":%d,"seconds":%f,"errors":%d}\\n', summary.requests,
    summary.bytes, summary.duration / 1e6, e.connect + e.read + e.write + e.status))
end
`,
  );
  try {
    const text = await must(which("wrk") ?? "wrk", [
      "-t1",
      `-c${connections}`,
      `-d${seconds}s`,
      "--timeout",
      "30s",
      "-s",
      script,
      url,
    ]);
    const { errors, ...load } = JSON.parse(/JSON(.*)/.exec(text)![1]!);
    if (errors > 0) throw new Error(`wrk saw ${errors} errors at ${url}: ${text}`);
    return load;
  } finally {
    await Deno.remove(script);
  }
}

/** What {@linkcode curl} saw. Times in seconds. */
export interface Transfer {
  readonly firstByte: number;
  readonly total: number;
}

/** Downloads `url` once. Throws for anything but all of `size` bytes with status 200. */
export async function curl(url: string, size: number): Promise<Transfer> {
  const format = "%{http_code} %{size_download} %{time_starttransfer} %{time_total}";
  const text = await must("curl", ["-s", "-o", "/dev/null", "-w", format, url]);
  const [status, bytes, firstByte, total] = text.split(" ").map(Number);
  if (status !== 200 || bytes !== size) throw new Error(`${url}: ${text}`);
  return { firstByte: firstByte!, total: total! };
}

/** Options for {@linkcode clients}. */
export interface ClientsOptions {
  readonly path: string;
  readonly count: number;
  /** GET each time by GET, or HEAD again and again for so many seconds. */
  readonly heads?: number;
  /** Bytes per second of each. */
  readonly rate?: number;
  /** Leave after so many seconds. */
  readonly leaveAfter?: number;
}

/** What the clients of {@linkcode clients} saw. */
export interface ClientsReport {
  /** Seconds each took; of those that got all. */
  readonly times: readonly number[];
  readonly requests: number;
  readonly bytes: number;
  readonly failures: number;
  readonly seconds: number;
}

/** Clients of our own, in a process of their own. */
export async function clients(host: string, options: ClientsOptions): Promise<ClientsReport> {
  const args = ["run", "--no-check", "--allow-net", `${ROOT}/bench/clients.ts`];
  return JSON.parse(
    await must(Deno.execPath(), [...args, JSON.stringify({ host, headers: HEADERS, ...options })]),
  );
}

/** CPU seconds that `peer` uses while `work` is done, and what it came to. */
export async function withCpu<T>(
  peer: Peer,
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly cpu: number }> {
  const before = peer.cpu();
  const result = await work();
  return { result, cpu: peer.cpu() - before };
}
