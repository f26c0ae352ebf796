/**
 * Reading stored content back to see whether it is still what its digest says.
 *
 * @module
 */
import { createHasher, parseDigest } from "../../oci/digest.ts";
import {
  BlobReplacedError,
  type BlobStore,
  BlobUnavailableError,
  UnreachableError,
} from "../store/blob_store.ts";

/** What became of stored content. `missing`: it has a row alone. `gone`: it left while it was checked. */
export type Verdict = "right" | "wrong" | "unreadable" | "missing" | "gone";

/** Options for {@linkcode checkStored}. */
export interface CheckOptions {
  /** Ends the check; the returned promise rejects with its reason. */
  readonly signal?: AbortSignal;
  /** Waited for after each read of some bytes: who is in no hurry slows the check with it. */
  readonly afterRead?: (bytes: number) => Promise<void> | void;
}

/** What a check came to. */
export interface Checked {
  readonly verdict: Verdict;
  /** Of what was read: see `StoredBlob.version`. */
  readonly version?: string;
}

const READ_SIZE = 2 ** 20;
/** What the store does not give, or breaks off, is tried so often before it counts as unreadable. */
const ATTEMPTS = 2;

/**
 * Hashes all of `digest` in `store`, in reads of 1 MiB. Throws when the signal says so, and an
 * `UnreachableError` where the store cannot tell.
 */
export async function checkStored(
  store: Pick<BlobStore, "open">,
  digest: string,
  options: CheckOptions = {},
): Promise<Checked> {
  for (let n = 1;; n++) {
    try {
      return await checkOnce(store, digest, options);
    } catch (error) {
      if (!(error instanceof BlobUnavailableError)) throw error;
      if (n === ATTEMPTS) return { verdict: "unreadable" };
    }
  }
}

async function checkOnce(
  store: Pick<BlobStore, "open">,
  digest: string,
  { signal, afterRead }: CheckOptions,
): Promise<Checked> {
  const hash = createHasher(digest);
  let blob: Awaited<ReturnType<BlobStore["open"]>>;
  try {
    blob = await store.open(digest);
    if (!blob) return { verdict: "missing" };
    const buffer = new Uint8Array(Math.min(READ_SIZE, blob.size + 1));
    for (let offset = 0;;) {
      signal?.throwIfAborted();
      const n = await blob.read(offset, buffer);
      if (n === 0) break;
      hash.update(buffer.subarray(0, n));
      offset += n;
      await afterRead?.(n);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof UnreachableError || error instanceof BlobUnavailableError) throw error;
    if (error instanceof BlobReplacedError) return { verdict: "gone" };
    return { verdict: "unreadable", version: blob?.version };
  } finally {
    blob?.close();
  }
  const isRight = hash.digest("hex") === parseDigest(digest).encoded;
  return { verdict: isRight ? "right" : "wrong", version: blob.version };
}
