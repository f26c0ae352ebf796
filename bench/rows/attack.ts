/**
 * What an instance takes in memory while clients do what they can to make it more.
 *
 * @module
 */
import { join } from "@std/path";
import { makeCertificate } from "../../tests/support/certificate.ts";
import { generated } from "../../tests/support/image.ts";
import { must } from "../../tests/support/process.ts";
import { ROOT } from "../../tests/support/proxy_process.ts";
import { digestOf } from "../../lib/oci/digest.ts";
import { type AttackOptions, NAMES } from "../attackers.ts";
import { check } from "../figures.ts";
import type { Peer } from "../peers.ts";
import type { Bench, Row, Series } from "../row.ts";

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
/** How long an instance has to come back to its idle size, ms. */
const RECOVERY = 60_000;
/** How much of that is as good as its idle size. */
const RECOVERED = 1.2;

/** Those that TLS makes any difference to. */
const WITH_TLS = ["idle", "half heads", "half bodies", "blobs", "pipelined", "one large manifest"];

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** A manifest of about `size` bytes; each `name` has another. */
function manifestOf(name: string, size: number): Uint8Array<ArrayBuffer> {
  const annotations = { name, padding: "p".repeat(size) };
  return new TextEncoder().encode(
    JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, layers: [], annotations }),
  );
}

/** A registry with manifests of 500 bytes and of 3 MiB, a blob, a long list of tags and a slow token server. */
function startRegistry() {
  const blob = generated({ size: 64 * 2 ** 20, seed: 7 });
  const tags = JSON.stringify({
    name: "attack/small",
    tags: Array.from({ length: 20_000 }, (_, i) => `t${i}`.padEnd(128, "x")),
  });
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname, origin } = new URL(request.url);
    const [, repository, kind, reference = ""] =
      /^\/v2\/attack\/(\w+)\/(manifests|blobs|tags)\/(.+)$/.exec(pathname) ?? [];
    if (pathname === "/token") {
      await wait(3_000);
      return Response.json({ token: "t".repeat(1_000), expires_in: 300 });
    }
    if (pathname === "/v2/" && request.headers.get("host")?.startsWith("localhost")) {
      const challenge = `Bearer realm="${origin}/token",service="attacked"`;
      return new Response(null, { status: 401, headers: { "www-authenticate": challenge } });
    }
    if (kind === "tags") {
      return new Response(tags, { headers: { "content-type": "application/json" } });
    }
    if (kind === "blobs") {
      const headers = { "content-length": String(blob.size) };
      let at = 0;
      const body = new ReadableStream<Uint8Array>({
        pull(controller) {
          const end = Math.min(blob.size, at + 2 ** 20);
          controller.enqueue(blob.read(at, end));
          if ((at = end) === blob.size) controller.close();
        },
      });
      return new Response(request.method === "HEAD" ? null : body, { headers });
    }
    if (kind === "manifests") {
      const bytes = repository === "large"
        ? manifestOf(reference, 3 * 2 ** 20)
        : manifestOf("", 400);
      return new Response(request.method === "HEAD" ? null : bytes, {
        headers: {
          "content-type": MANIFEST,
          "content-length": String(bytes.byteLength),
          "docker-content-digest": digestOf(bytes),
        },
      });
    }
    return Response.json({});
  });
  const { port } = server.addr as Deno.NetAddr;
  return {
    blob: blob.digest,
    env: {
      UPSTREAM_DOCKER: `http://127.0.0.1:${port}`,
      UPSTREAM_QUAY: `http://localhost:${port}`,
    },
    stop: () => server.shutdown(),
  };
}

/** What one attack came to, MB. */
interface Memory {
  readonly idle: number;
  readonly peak: number;
  readonly after: number;
}

/** Attacks `peer`, and waits until it is itself again, a minute at most. */
async function attack(
  peer: Peer,
  options: Omit<AttackOptions, "port">,
): Promise<Memory & { said: string }> {
  await wait(2_000);
  const idle = peer.rss() / 1e6;
  const port = Number(new URL(peer.url).port);
  const args = ["run", "--no-check", "-A", join(ROOT, "bench/attackers.ts")];
  const said = await must(Deno.execPath(), [...args, JSON.stringify({ ...options, port })]);
  let after = peer.rss() / 1e6;
  for (let waited = 0; waited < RECOVERY && after > idle * RECOVERED; waited += 1_000) {
    await wait(1_000);
    after = peer.rss() / 1e6;
  }
  return { idle, after, peak: peer.peakRss() / 1e6, said: said.trim() };
}

/** Every attack in clear and some with TLS, each on an instance of its own. */
async function measure(bench: Bench): Promise<Map<string, Memory>> {
  const registry = startRegistry();
  const dir = await Deno.makeTempDir({ prefix: "bench-attack-" });
  const found = new Map<string, Memory>();
  try {
    const { certPath, keyPath } = await makeCertificate(dir);
    const wanted = Deno.env.get("ATTACKS")?.split(";");
    for (const tls of [false, true]) {
      const secure = { TLS_CERT: certPath, TLS_KEY: keyPath };
      for (const name of tls ? WITH_TLS : NAMES) {
        const title = tls ? `${name}, TLS` : name;
        if (wanted && !wanted.includes(title)) continue;
        const env = { ...registry.env, ...tls && secure };
        const peer = await bench.peers.start("ours", { env });
        try {
          await fetched(peer, `/v2/attack/blob/blobs/${registry.blob}`, tls);
          const { said, ...memory } = await attack(peer, {
            attack: name,
            tls,
            blob: registry.blob,
            hold: 8_000,
          });
          const { idle, peak, after } = memory;
          const text = [idle, peak, after].map((value) => value.toFixed(0));
          bench.say(
            `  ${title}: ${text[0]} MB idle, ${text[1]} at most, ${text[2]} after; ${said}`,
          );
          found.set(title, memory);
        } finally {
          await peer.stop();
        }
      }
    }
  } finally {
    await registry.stop();
    await Deno.remove(dir, { recursive: true });
  }
  return found;
}

/** Has `peer` keep what is at `path`. */
async function fetched(peer: Peer, path: string, tls: boolean): Promise<void> {
  const url = `${tls ? "https" : "http"}://${peer.host}${path}`;
  await must("curl", ["-sk", "-o", "/dev/null", url]);
}

export const attacks: Row = {
  name: "attack",
  title: "memory under attack",
  meaning: "Whatever clients do, an instance stays below 300 MB, and gives back what it took.",
  async run(bench) {
    const found = await measure(bench);
    const series = [...found].flatMap(([server, { peak, after }]): Series[] => [
      { server, figure: "peak RSS MB", values: [peak] },
      { server, figure: "RSS MB within a minute after", values: [after] },
    ]);
    const all = [...found.values()];
    const most = [Math.max(...all.map(({ peak }) => peak))];
    const back = [Math.max(...all.map(({ after, idle }) => after / idle))];
    return {
      series,
      checks: [
        check("highest peak RSS", { values: most, target: { atMost: 300 }, unit: " MB" }),
        check("RSS within a minute after, by idle RSS", {
          values: back,
          target: { atMost: RECOVERED },
        }),
      ],
      notes: [
        "Each attack has an instance of its own, which has just passed on and kept a blob of 64 MiB.",
      ],
    };
  },
};
