/**
 * The policies for manifests and blobs on a store and an index in memory, with a clock and an upstream that
 * a test controls.
 *
 * @module
 */
import { Access, type Caller } from "../../lib/auth/access.ts";
import type { BlobStore } from "../../lib/cache/store/blob_store.ts";
import { Blobs } from "../../lib/cache/blobs.ts";
import { Content } from "../../lib/cache/content/content.ts";
import { Manifests } from "../../lib/cache/manifests.ts";
import { bestEffortIndex } from "../../lib/cache/index/best_effort_index.ts";
import { SqliteIndex } from "../../lib/cache/index/sqlite_index.ts";
import { OciError } from "../../lib/oci/error.ts";
import { registryOf } from "../../lib/oci/registry.ts";
import { Passthrough, type TargetRequest } from "../../lib/upstream/passthrough.ts";
import { Stats } from "../../lib/telemetry/stats.ts";
import type { Target, TargetKind } from "../../lib/transforms/route.ts";
import { RegistryClient } from "../../lib/upstream/registry_client.ts";
import { Upstream } from "../../lib/upstream/client.ts";
import type { Send } from "../../lib/upstream/transport/send.ts";
import { Tokens } from "../../lib/upstream/token.ts";
import { MemoryStore } from "./memory_store.ts";

/** Answers one request upstream; an error it throws is what the network did. */
export type UpstreamHandler = (
  method: string,
  path: string,
  headers: Headers,
) => Response | Promise<Response>;

/** Upstream's trouble as `send` tells it. */
export const UNREACHABLE = new OciError("UNAVAILABLE", "Cannot reach registry.test", {
  status: 502,
  cause: new Error("connection refused"),
});

const TTL = 60_000;
const registry = registryOf("test", new URL("https://registry.test"));

/** Options for {@linkcode startPolicies}. */
export interface PoliciesOptions {
  /** The cap in bytes. @default {10_000_000} */
  readonly maxSize?: number;
  /** Where clients can get stored blobs by themselves. */
  readonly redirect?: BlobStore["redirect"];
}

/** An answer that was read to its end. */
export interface Read {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Uint8Array<ArrayBuffer>;
  /** `X-Cache`. */
  readonly cache: string | null;
}

/** Makes the policies. */
export function startPolicies({ maxSize = 10_000_000, redirect }: PoliciesOptions = {}) {
  const clock = { now: 1_700_000_000_000 };
  const now = () => clock.now;
  const index = new SqliteIndex(":memory:", { now });
  const store = new MemoryStore();
  store.now = now;
  const stats = new Stats();
  const content = new Content({ index, store, maxSize, stats, now, idle: 60_000 });
  const asked: string[] = [];
  const aborted: string[] = [];
  const state: { handle: UpstreamHandler } = {
    handle: () => new Response(null, { status: 404 }),
  };
  const timeouts: (number | undefined)[] = [];
  const send: Send = async (url, { method, headers, timeout }) => {
    timeouts.push(timeout);
    const what = `${method} ${url.pathname.replace("/v2/a/b/", "")}`;
    asked.push(what);
    const response = await state.handle(method, url.pathname, headers);
    return { response, abort: () => void aborted.push(what) };
  };
  const tokens = new Tokens({ send, allowPrivate: false, now });
  const redirects = { followAll: true, blockedHosts: [], storageHosts: [] };
  const upstream = new Upstream({ send, tokens, redirects, now });
  const notes = bestEffortIndex(index, (error) => content.diskTrouble(error));
  const access = new Access({ marks: notes, isAnonymousToken: () => false, now });
  const asker = new RegistryClient({ upstream, access });
  const relay = new Passthrough({ asker, idle: 60_000, stats });
  const shared = { content, index: notes, access, asker, relay, now };
  const manifests = new Manifests({ ...shared, ttl: TTL });
  const blobs = new Blobs({ ...shared, redirect });

  function request(kind: TargetKind, reference: string, options: AskOptions = {}): TargetRequest {
    const { method = "GET", headers = {}, user } = options;
    const target: Target = { registry, repository: "a/b", kind, reference, prefix: "", base: "" };
    const caller: Caller = user === undefined
      ? { id: "anonymous", credential: { kind: "anonymous" }, isShared: false }
      : { id: user, credential: { kind: "bearer", token: user }, isShared: false };
    const url = new URL(`https://proxy.test/v2/a/b/${kind}s/${reference}`);
    return { method, headers: new Headers(headers), url, target, caller };
  }

  async function ask(kind: "manifest" | "blob", reference: string, options?: AskOptions) {
    const policy = kind === "manifest" ? manifests : blobs;
    const { response } = await policy.answer(request(kind, reference, options));
    const { status, headers } = response;
    const read: Read = {
      status,
      headers,
      body: await response.bytes(),
      cache: headers.get("x-cache"),
    };
    return read;
  }

  return {
    ttl: TTL,
    clock,
    index,
    store,
    stats,
    content,
    manifests,
    blobs,
    /** What upstream was asked since the last look, as `GET manifests/latest`. */
    asked: () => asked.splice(0),
    /** How long each of its requests was waited for, ms, as far as it had a limit of its own. */
    timeouts,
    /** What was given up of it. */
    aborted,
    /** Sets what upstream answers. */
    handle: (handler: UpstreamHandler) => void (state.handle = handler),
    request,
    /** Asks for a manifest or blob of `a/b`, and reads the answer. Throws an `OciError`. */
    ask,
    async [Symbol.asyncDispose]() {
      store.before = () => {};
      await content.close(1_000);
      index.close();
    },
  };
}

/** How something is asked for. */
export interface AskOptions {
  /** @default {"GET"} */
  readonly method?: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  /** Whose token is shown. @default {nobody's} */
  readonly user?: string;
}
