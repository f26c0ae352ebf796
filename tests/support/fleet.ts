/**
 * Several instances in this process that share a real Redis and a real S3 server.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Engine, redisCommand, startRedis, startS3 } from "./engines.ts";
import { type FakeRegistry, startFakeRegistry } from "./fake_registry.ts";
import { whole } from "./http.ts";
import { blobsOf, type Image, manifestsOf } from "./image.ts";
import { startTestProxy, type TestProxy } from "./proxy.ts";
import { freePort } from "./temp.ts";

/** Instances with what they share. */
export interface Fleet extends AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly redis: Engine;
  readonly s3: Engine | undefined;
  readonly instances: readonly TestProxy[];
}

/** Starts `count` instances on a Redis and a store of their own. */
export async function startFleet(
  count: number,
  options: {
    store?: "s3" | "redis";
    env?: Readonly<Record<string, string>>;
    /** Arguments of redis-server. */
    redis?: readonly string[];
    auth?: "none" | "token";
    users?: Readonly<Record<string, string>>;
  } = {},
): Promise<Fleet> {
  const { store = "s3", auth = "token", users } = options;
  const stack = new AsyncDisposableStack();
  const redis = stack.use(await startRedis({ args: options.redis }));
  const s3 = store === "s3" ? stack.use(await startS3()) : undefined;
  const registry = stack.use(await startFakeRegistry({ auth, users }));
  const instances: TestProxy[] = [];
  for (let i = 0; i < count; i++) {
    const env = {
      CACHE_STORE: s3?.url ?? redis.url,
      CACHE_INDEX: redis.url,
      HOST: "127.0.0.1",
      PORT: String(await freePort()),
      ...s3?.env,
      ...options.env,
    };
    instances.push(stack.use(await startTestProxy({ upstreams: { docker: registry }, env })));
  }
  return { registry, redis, s3, instances, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Accepts every manifest of the images of `image.ts`. */
export const ANY = { accept: "application/vnd.oci.image.manifest.v1+json" };

/** A token of the instance's for pulling `repository`. */
export async function token(proxy: TestProxy, repository: string, basic?: string): Promise<string> {
  const headers: Record<string, string> = basic ? { authorization: `Basic ${btoa(basic)}` } : {};
  const scope = `repository:${repository}:pull`;
  const answer = await whole(`${proxy.url}/v2/auth?service=x&scope=${scope}`, { headers });
  assertEquals(answer.status, 200, answer.text);
  return answer.json.token;
}

/** Pulls everything of `image` through `proxy` and compares every byte; what `X-Cache` said of each. */
export async function pull(
  proxy: TestProxy,
  image: Image,
  { repository = "team/app", tag = "1", basic }: {
    repository?: string;
    tag?: string;
    basic?: string;
  } = {},
): Promise<string[]> {
  const headers = { ...ANY, authorization: `Bearer ${await token(proxy, repository, basic)}` };
  const manifest = await whole(`${proxy.url}/v2/${repository}/manifests/${tag}`, { headers });
  assertEquals([manifest.status, manifest.digest], [200, manifestsOf(image)[0]!.digest]);
  const caches = [manifest.headers.get("x-cache")!];
  for (const { digest } of blobsOf(image)) {
    const blob = await whole(`${proxy.url}/v2/${repository}/blobs/${digest}`, { headers });
    assertEquals([blob.status, blob.digest], [200, digest]);
    caches.push(blob.headers.get("x-cache")!);
  }
  return caches;
}

/** The commands that clients send to a Redis, without those that happen by the clock and not for a request. */
export async function watchRedis(port: number): Promise<
  AsyncDisposable & { readonly seen: string[]; quiet(): Promise<void> }
> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const encoder = new TextEncoder();
  await connection.write(encoder.encode("MONITOR\r\n"));
  const seen: string[] = [];
  const marks = new Map<string, () => void>();
  const reading = (async () => {
    let rest = "";
    for await (const text of connection.readable.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\r\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const [, source = "", command = "", first = ""] =
          /\[\d+ ([^\]]+)\] "(\w+)"(?: "([^"]*)")?/.exec(line) ?? [];
        if (command === "ECHO") marks.get(first)?.();
        // Of scripts, recency every five seconds, and quotas.
        else if (command && source !== "lua" && !/^(ZADD|HVALS|PING)$/.test(command)) {
          seen.push(command);
        }
      }
    }
  })();
  return {
    seen,
    /** Everything that Redis was sent before has been seen. */
    async quiet() {
      const mark = crypto.randomUUID();
      const arrived = new Promise<void>((resolve) => marks.set(mark, resolve));
      await redisCommand(port, `ECHO ${mark}`);
      await arrived;
    },
    async [Symbol.asyncDispose]() {
      connection.close();
      await reading.catch(() => {}); // it is closed
    },
  };
}
