/**
 * The operator's API, which the page uses. `openapi.json` describes it.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import * as v from "valibot";
import { verify } from "../cache/content/verify.ts";
import {
  CLIENT_KINDS,
  clientConfig,
  instanceOf,
  parseInstanceUrl,
  throughProxy,
} from "../operator/client_config.ts";
import { OciError } from "../oci/error.ts";
import { type Operations, ProxyOperations } from "../operator/operations.ts";
import { parsePlatforms } from "../oci/platform.ts";
import type { Proxy } from "../proxy/proxy.ts";
import { eventStream } from "./events.ts";
import { History, isRange, RANGES } from "../operator/history.ts";
import { Images } from "./images.ts";
import { Metrics } from "./metrics.ts";
import { goDockerProxyCacheStats, goDockerProxyStats } from "./go_docker_proxy_compat.ts";
import openapi from "./openapi.json" with { type: "json" };
import * as views from "./views.ts";

/** A request as a route receives it. */
export interface ApiRequest {
  readonly query: URLSearchParams;
  /** Returns the parsed body of a POST. Throws an `OciError` (400) if it is not a JSON object. */
  json(): Promise<unknown>;
}

type Route = (request: ApiRequest) => unknown;

const EVENT_EVERY = 1_000;

const Names = v.pipe(v.array(v.string()), v.minLength(1), v.maxLength(100));
const WarmBody = v.object({
  images: Names,
  platforms: v.optional(v.union([v.string(), v.array(v.string())]), "all"),
});
const ImageBody = v.object({ registry: v.string(), repository: v.string(), tag: v.string() });

/** The API of one proxy. */
export class Api {
  readonly #proxy: Proxy;
  readonly #operations: Operations;
  readonly #images: Images;
  readonly #history: History;
  /** The routes, by method and path. */
  readonly routes: ReadonlyMap<string, Route>;

  constructor(proxy: Proxy) {
    this.#proxy = proxy;
    this.#operations = new ProxyOperations(proxy);
    this.#images = new Images(proxy);
    this.#history = new History(proxy.stats, { dir: proxy.config.cache?.dir });
    this.routes = new Map<string, Route>([
      ["GET /metrics", () => this.#renderMetrics()],
      ["GET /stats", () => goDockerProxyStats(proxy)],
      ["GET /stats/cache", () => goDockerProxyCacheStats(proxy)],
      ["GET /api/openapi.json", () => openapi],
      ["GET /api/overview", () => this.#overview()],
      ["GET /api/stats", () => this.#report()],
      ["GET /api/history", ({ query }) => this.#samples(query)],
      ["GET /api/registries", () => views.registries(proxy)],
      ["GET /api/fills", () => views.fills(proxy)],
      ["GET /api/events", () => this.#events()],
      ["GET /api/images", ({ query }) => this.#images.list(query)],
      ["GET /api/image", ({ query }) => this.#images.image(nameOf(query))],
      ["DELETE /api/image", ({ query }) => this.#remove(nameOf(query))],
      ["DELETE /api/images", ({ query }) => this.#drop(nameOf(query))],
      ["POST /api/refresh", (request) => this.#refresh(request)],
      ["POST /api/warm", (request) => this.#warm(request)],
      ["POST /api/verify", () => this.#verify()],
      ["GET /api/client-config", ({ query }) => this.#clientConfig(query)],
      ["GET /api/command", ({ query }) => this.#command(query)],
    ]);
  }

  async #renderMetrics(): Promise<Response> {
    const { text, contentType } = await new Metrics(this.#proxy).render();
    return new Response(text, { headers: { "content-type": contentType } });
  }

  async #overview() {
    return { ...await views.overview(this.#proxy), allTime: this.#history.total };
  }

  async #report() {
    return { ...await this.#operations.report(), allTime: this.#history.total };
  }

  #samples(query: URLSearchParams) {
    const range = query.get("range") ?? "hour";
    if (!isRange(range)) throw invalid(`range: Expected ${Object.keys(RANGES).join(", ")}`);
    return { range, ...RANGES[range], samples: this.#history.samples(range) };
  }

  #events(): Response {
    return eventStream(async (send, signal) => {
      while (!signal.aborted) {
        send(await this.#overview(), "overview");
        send(views.fills(this.#proxy), "fills");
        send(views.registries(this.#proxy), "registries");
        await delay(EVENT_EVERY, undefined, { signal }); // rejects when the client leaves
      }
    });
  }

  /** Removes the selected images, if any. */
  async #drop(name: string) {
    const removal = await this.#operations.remove(name);
    this.#images.forget();
    return removal;
  }

  async #remove(name: string) {
    const { tags, entries, bytes } = await this.#drop(name);
    if (tags === 0) throw new OciError("MANIFEST_UNKNOWN", "Not in the cache");
    return { removedTags: tags, removedContents: entries, freedBytes: bytes };
  }

  /** Asks upstream what the tag refers to, and downloads its manifest if it changed. */
  async #refresh(request: ApiRequest) {
    const { registry, repository, tag } = await body(request, ImageBody);
    const name = `${registry}/${repository}:${tag}`;
    const before = await this.#images.image(name).catch(() => undefined);
    const [warmed] = await this.#operations.warm([name], { manifestOnly: true });
    this.#images.forget();
    // A digest without a result means that upstream was unavailable and an older copy was kept.
    if (!warmed?.digest || !warmed.ok) {
      throw new OciError("UNAVAILABLE", warmed?.failures[0]?.error ?? "Upstream does not have it");
    }
    return { digest: warmed.digest, changed: warmed.digest !== before?.digest };
  }

  async #warm(request: ApiRequest): Promise<Response> {
    const { images, platforms } = await body(request, WarmBody);
    const wanted = platformsOf(platforms);
    return eventStream(async (send, signal) => {
      const results = await this.#operations.warm(images, {
        platforms: wanted,
        signal,
        onProgress: (progress) => send({ type: "progress", ...progress }, "progress"),
      });
      this.#images.forget();
      for (const result of results) send({ type: "result", ...result }, "result");
      send({ type: "done", ok: results.every(({ ok }) => ok) }, "done");
    });
  }

  #verify(): Response {
    const { cache } = this.#proxy;
    if (!cache) throw noCache();
    return eventStream(async (send, signal) => {
      let next = 0;
      const report = await verify(cache, {
        signal,
        onProgress(progress) {
          if (performance.now() < next) return;
          next = performance.now() + 200;
          const { entries, totalEntries, bytes, totalBytes, wrong } = progress;
          const checked = { checked: entries, total: totalEntries, bytes, totalBytes, wrong };
          send({ type: "progress", ...checked }, "progress");
        },
      });
      send({
        type: "done",
        checked: report.entries,
        total: report.totalEntries,
        bytes: report.bytes,
        totalBytes: report.totalBytes,
        found: report.found,
        wrongEntries: report.wrong,
        problems: report.problems,
        wrong: report.problems.map(({ digest }) => digest),
      }, "done");
    });
  }

  #clientConfig(query: URLSearchParams) {
    const kind = CLIENT_KINDS.find((known) => known === query.get("kind"));
    if (!kind) throw invalid(`kind: Expected ${CLIENT_KINDS.join(", ")}`);
    return clientConfig(kind, instanceOf(this.#proxy.config, baseOf(query)));
  }

  #command(query: URLSearchParams) {
    const image = query.get("image")?.trim();
    if (!image) throw invalid("image: Missing");
    const reference = throughProxy(image, instanceOf(this.#proxy.config, baseOf(query)));
    return {
      reference,
      commands: [
        { tool: "docker", command: `docker pull ${reference}` },
        { tool: "podman", command: `podman pull ${reference}` },
        { tool: "containerd", command: `ctr images pull ${reference}` },
        { tool: "skopeo", command: `skopeo inspect docker://${reference}` },
      ],
    };
  }

  async close(): Promise<void> {
    await this.#history.close();
  }
}

function invalid(message: string): OciError {
  return new OciError("NAME_INVALID", message);
}

function noCache(): OciError {
  return new OciError("UNSUPPORTED", "The cache is off", { status: 409 });
}

/**
 * Returns the image named by `name`, or by `registry`, `repository` and `tag`. Without a tag it is the
 * repository.
 */
function nameOf(query: URLSearchParams): string {
  const name = query.get("name");
  if (name) return name;
  const [registry, repository, tag] = ["registry", "repository", "tag"].map((key) =>
    query.get(key)
  );
  if (!registry || !repository) throw invalid("registry, repository: Missing");
  return `${registry}/${repository}${tag ? `:${tag}` : ""}`;
}

/** Returns the instance at the address that clients use. */
function baseOf(query: URLSearchParams): URL | undefined {
  const text = query.get("base");
  if (!text) return undefined;
  try {
    return parseInstanceUrl(text);
  } catch (error) {
    throw invalid(`base: ${(error as Error).message}`);
  }
}

function platformsOf(given: string | readonly string[]) {
  try {
    return parsePlatforms(typeof given === "string" ? given : given.join(","));
  } catch (error) {
    throw invalid(`platforms: ${(error as Error).message}`);
  }
}

async function body<T extends v.GenericSchema>(
  request: ApiRequest,
  schema: T,
): Promise<v.InferOutput<T>> {
  const result = v.safeParse(schema, await request.json());
  if (result.success) return result.output;
  throw invalid(
    result.issues.map((issue) => `${v.getDotPath(issue) ?? "body"}: ${issue.message}`).join("; "),
  );
}
