/**
 * A registry with one manifest in a thread of its own: it answers while the thread of the test stands still.
 *
 * @module
 */

/** What it is told first. */
export interface WorkerManifest {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly mediaType: string;
  readonly digest: string;
}

/** What it says: where it listens, then what it is asked. */
export type WorkerMessage = { readonly url: string } | { readonly asked: string };

/** How long it takes to answer, ms. */
const DELAY = 100;

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<WorkerManifest>) => void;
  postMessage(message: WorkerMessage): void;
};

scope.onmessage = ({ data: { bytes, mediaType, digest } }) => {
  const onListen = ({ port }: Deno.NetAddr) =>
    scope.postMessage({ url: `http://127.0.0.1:${port}` });
  Deno.serve({ hostname: "127.0.0.1", port: 0, onListen }, async ({ method, url }) => {
    const { pathname } = new URL(url);
    scope.postMessage({ asked: `${method} ${pathname}` });
    await new Promise((resolve) => setTimeout(resolve, DELAY));
    if (pathname === "/v2/") return Response.json({});
    if (!pathname.includes("/manifests/")) return new Response(null, { status: 404 });
    const headers = {
      "content-type": mediaType,
      "content-length": String(bytes.byteLength),
      "docker-content-digest": digest,
    };
    return new Response(method === "HEAD" ? null : bytes, { headers });
  });
};
