/** Every answer of the operator's API, as it comes over the wire, against `openapi.json`. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import openapi from "../../lib/admin/openapi.json" with { type: "json" };
import { startAdmin } from "../../lib/admin/server.ts";
import { readEvents } from "../../lib/commands/event_stream.ts";
import { breakMethod } from "../support/break_method.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { blobsOf, makeImage, makeIndex, manifestsOf } from "../support/image.ts";
import { problemsOf, resolve, type Schema } from "../support/json_schema.ts";
import { pull } from "../support/page.ts";
import { startTestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

interface Media {
  readonly schema: Schema;
  readonly "x-events"?: Readonly<Record<string, Schema>>;
}
interface Described {
  readonly content?: Readonly<Record<string, Media>>;
}
interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly schema: Schema }[];
  readonly requestBody?: Described;
  readonly responses: Readonly<Record<string, Described & { readonly $ref?: string }>>;
}

const PATHS = openapi.paths as unknown as Readonly<
  Record<string, Readonly<Record<string, Operation>>>
>;

/** Asks a listener, and compares each answer with its description. */
class Conformance {
  readonly #url: string;
  readonly #token?: string;
  /** `GET /api/image 404`: what was looked at. */
  readonly seen = new Set<string>();

  constructor(url: string, token?: string) {
    this.#url = url;
    this.#token = token;
  }

  /** The data of the answer: JSON, text, or a list of events; of a stream that goes on the first `take`. */
  async ask(
    call: string,
    { body, take = Infinity }: { body?: unknown; take?: number } = {},
    // deno-lint-ignore no-explicit-any
  ): Promise<any> {
    const [method, target] = call.split(" ") as [string, string];
    const path = target.split("?")[0]!;
    const operation = PATHS[path]?.[method.toLowerCase()];
    assert(operation, `${method} ${path} is not described`);
    const query = new URL(target, this.#url).searchParams;
    for (const name of query.keys()) {
      assert(operation.parameters?.some((one) => one.name === name), `${call}: ${name}`);
    }
    const response = await fetch(this.#url + target, {
      method,
      headers: {
        "content-type": "application/json",
        ...this.#token && { authorization: `Bearer ${this.#token}` },
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const { status } = response;
    this.seen.add(`${method} ${path} ${status}`);
    const named = operation.responses[status];
    assert(named, `${call}: ${status} is not described`);
    const described: Described = named.$ref ? resolve(openapi, named.$ref) : named;
    const type = (response.headers.get("content-type") ?? "").split(";")[0]!;
    if (!described.content) {
      assertEquals([await response.text(), type], ["", ""], call);
      return undefined;
    }
    const media = described.content[type];
    assert(media, `${call}: ${type} is not described for ${status}`);
    if (type === "text/event-stream") return await this.#events(call, { response, media, take });
    const value = type === "application/json" ? await response.json() : await response.text();
    this.#compare(call, value, media.schema);
    // Who sends what is described is understood, and who is understood sends what is described.
    if (method === "POST" && body !== undefined && status < 300) {
      this.#compare(
        `${call} body`,
        body,
        operation.requestBody!.content!["application/json"]!.schema,
      );
    }
    return value;
  }

  async #events(
    call: string,
    { response, media, take }: { response: Response; media: Media; take: number },
  ) {
    const found: { event: string; data: unknown }[] = [];
    for await (const { event, data } of readEvents(response.body!)) {
      const schema = media["x-events"]?.[event];
      assert(schema, `${call}: the event ${event} is not described`);
      const value = JSON.parse(data);
      this.#compare(`${call} ${event}`, value, schema);
      this.seen.add(`${call.split("?")[0]} ${event}`);
      found.push({ event, data: value });
      if (found.length >= take) break;
    }
    return found;
  }

  #compare(call: string, value: unknown, schema: Schema): void {
    assertEquals([...problemsOf(value, schema, { document: openapi })], [], call);
  }
}

const TOKEN = "the operator's token";
const PLATFORMS = ["amd64", "arm64"].map((architecture) => ({ os: "linux", architecture }));

Deno.test("every answer of the operator's API is as openapi.json describes it", async () => {
  await using stack = new AsyncDisposableStack();
  const docker = stack.use(await startFakeRegistry());
  docker.control.quota = { limit: 100, remaining: 90, window: 21_600 };
  const quay = stack.use(await startFakeRegistry());
  const proxy = stack.use(
    await startTestProxy({ upstreams: { docker, quay }, env: { RETRIES: "0" } }),
  );
  const admin = startAdmin(proxy.proxy, {
    host: "127.0.0.1",
    port: 0,
    isWanted: true,
    token: TOKEN,
  });
  stack.defer(() => admin.close());
  const url = `http://127.0.0.1:${admin.addr.port}`;
  const api = new Conformance(url, TOKEN);
  const looks = async () => {
    for (const path of ["overview", "registries", "fills", "history"]) {
      await api.ask(`GET /api/${path}`);
    }
    await api.ask("GET /stats");
    await api.ask("GET /stats/cache");
  };

  await looks();
  const image = makeIndex(PLATFORMS.map((platform, seed) => makeImage({ seed, platform })));
  docker.add("library/app", "1", image);
  await pull(proxy, { repository: "library/app", tag: "1", image, times: 2 });
  quay.control.failWith = 503;
  await (await fetch(`${proxy.url}/v2/quay.io/x/y/manifests/1`)).body?.cancel();
  await looks();
  const [hub, down] = (await api.ask("GET /api/registries")).filter(
    ({ name }: { name: string }) => ["docker", "quay"].includes(name),
  );
  assertEquals([hub.registry, hub.state, hub.problem, hub.errors], ["docker.io", "up", null, 0]);
  assertNotEquals(hub.quota, null);
  assertEquals([down.registry, down.state, down.problem, down.errors, down.requests], [
    "quay.io",
    "down",
    "503",
    1,
    1,
  ]);
  const report = await api.ask("GET /api/stats");
  assertEquals(report.traffic.quotas[0].registry, "docker.io");
  for (const range of ["hour", "day", "month"]) {
    const { samples } = await api.ask(`GET /api/history?range=${range}`);
    assert(samples.at(-1).hit > 0, range);
  }
  await api.ask("GET /api/history?range=century");

  // A download that is under way.
  const slow = makeImage({ seed: 7, layers: [300_000] });
  docker.add("library/slow", "1", slow);
  const layer = slow.layers[0]!.digest;
  const stall = docker.faults.add({ reference: layer }, { stallAt: 1000 });
  const leave = new AbortController();
  const blob = await fetch(`${proxy.url}/v2/library/slow/blobs/${layer}`, { signal: leave.signal });
  await until(async () => (await api.ask("GET /api/fills")).length > 0);
  const [fill] = await api.ask("GET /api/fills");
  assertEquals([fill.registry, fill.repository], ["docker.io", "library/slow"]);
  const told = await api.ask("GET /api/events", { take: 3 });
  const events = told.map(({ event }: { event: string }) => event);
  assertEquals(events, ["overview", "fills", "registries"]);
  assertEquals(told[1].data[0].registry, "docker.io");
  leave.abort();
  await blob.body?.cancel().catch(() => {});
  stall.remove();

  const { images, total } = await api.ask("GET /api/images?q=app&sort=hits&order=asc&limit=5");
  assertEquals([total, images[0].registry], [1, "docker.io"]);
  assertEquals((await api.ask("GET /api/images?last=&limit=1")).images.length, 1);
  await api.ask("GET /api/images?sort=colour");
  await api.ask("GET /api/images?attached=false");
  await api.ask("GET /api/images?attached=maybe");
  const one = "registry=docker.io&repository=library/app";
  const details = await api.ask(`GET /api/image?${one}&tag=1`);
  assertEquals(details.usedAt, images[0].usedAt);
  await api.ask(`GET /api/image?${one}&tag=none`);
  await api.ask("GET /api/image");

  await api.ask("POST /api/login");
  await api.ask("POST /api/logout");
  await new Conformance(url).ask("GET /api/overview");
  const tag = { registry: "docker.io", repository: "library/app", tag: "1" };
  await api.ask("POST /api/refresh", { body: tag });
  await api.ask("POST /api/refresh", { body: { ...tag, tag: "none" } });
  await api.ask("POST /api/refresh", { body: { tag: "1" } });
  const part = makeImage({ seed: 9 });
  docker.add("library/part", "1", part);
  docker.faults.add({ reference: blobsOf(part)[0]!.digest }, { status: 404 });
  const body = { images: ["app:1", "part:1", "no name"], platforms: ["linux/amd64"] };
  const warmed = await api.ask("POST /api/warm", { body });
  assertEquals(warmed.filter(({ event }: { event: string }) => event === "result").length, 3);
  await api.ask("POST /api/warm", { body: { images: [] } });
  const { digest } = manifestsOf(image)[0]!;
  const hex = digest.slice("sha256:".length);
  const file = `${proxy.cacheDir}/blobs/sha256/${hex.slice(0, 2)}/${hex}`;
  const bytes = await Deno.readFile(file);
  await Deno.writeFile(file, bytes.map((byte) => byte ^ 1));
  const verified = await api.ask("POST /api/verify");
  assertEquals(verified.at(-1).data.wrong, [digest]);
  {
    using _broken = breakMethod(proxy.proxy.cache!.index, "totals", "disk I/O error");
    await api.ask("GET /api/overview");
    const events = await api.ask("POST /api/verify");
    assertEquals(events.at(-1).event, "error");
  }

  for (const kind of ["docker", "containerd", "podman", "buildkit", "kubernetes"]) {
    await api.ask(`GET /api/client-config?kind=${kind}&base=http://proxy.lan:8080`);
  }
  await api.ask("GET /api/client-config?kind=docker&base=http://proxy.lan/path");
  await api.ask("GET /api/client-config?kind=other");
  await api.ask("GET /api/command?image=ghcr.io/x/y:1&base=proxy.lan:8080");
  await api.ask("GET /api/command?image=elsewhere.example/x:1");
  await api.ask("GET /api/openapi.json");
  await api.ask("GET /metrics");

  await api.ask("POST /api/warm", { body: { images: ["app:1"] } });
  await api.ask("DELETE /api/images?name=docker.io/library/none:1");
  await api.ask("DELETE /api/images?name=app:1");
  await api.ask(`DELETE /api/image?${one}&tag=1`);
  await api.ask("DELETE /api/image?registry=docker.io&repository=library/part");

  const stranger = new Conformance(url, "wrong");
  for (let i = 0; i < 6; i++) await stranger.ask("POST /api/login");
  assert(stranger.seen.has("POST /api/login 429"));

  const all = Object.entries(PATHS).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { responses }]) => {
      const call = `${method.toUpperCase()} ${path}`;
      const [status] = Object.keys(responses).filter((code) => code.startsWith("2"));
      const events = responses[status!]!.content?.["text/event-stream"]?.["x-events"];
      return [`${call} ${status}`, ...Object.keys(events ?? {}).map((name) => `${call} ${name}`)];
    })
  );
  // Neither happens while all is as it should be; verifying shows what an error is.
  const rare = ["GET /api/events error", "POST /api/warm error"];
  assertEquals(all.filter((one) => !api.seen.has(one) && !rare.includes(one)), []);
});

Deno.test("without a cache the API's answers are as described too", async () => {
  await using proxy = await startTestProxy({ env: { CACHE_ENABLED: "false" } });
  const admin = startAdmin(proxy.proxy, { host: "127.0.0.1", port: 0, isWanted: true });
  try {
    const api = new Conformance(`http://127.0.0.1:${admin.addr.port}`);
    const paths = ["overview", "stats", "registries", "fills", "images", "history"];
    for (const path of paths) await api.ask(`GET /api/${path}`);
    await api.ask("GET /stats");
    await api.ask("GET /stats/cache");
    await api.ask("POST /api/verify");
    const [error] = await api.ask("POST /api/warm", { body: { images: ["app"] } });
    assertEquals(error.event, "error");
    await api.ask("DELETE /api/images?name=app:1");
    assertEquals([...api.seen].filter((call) => call.endsWith("409")), [
      "GET /api/stats 409",
      "POST /api/verify 409",
      "DELETE /api/images 409",
    ]);
  } finally {
    await admin.close();
  }
});
