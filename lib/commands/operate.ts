/**
 * Whose hands a command works with: a cache directory belongs to one process, so where an instance runs it
 * has to do it.
 *
 * @module
 */
import { join } from "@std/path";
import { CacheOpenError } from "../cache/cache.ts";
import { IndexLockedError } from "../cache/index/sqlite_file.ts";
import type { Config } from "../config/config.ts";
import { type Operations, ProxyOperations } from "../operator/operations.ts";
import { Proxy } from "../proxy/proxy.ts";
import { NotRunningError, RemoteOperations } from "./remote.ts";

/** The command cannot be carried out, for a reason that is told as it is. */
export class OperateError extends Error {
  override readonly name = "OperateError";
}

/** Operations, and what ends them. */
export interface Operated {
  readonly operations: Operations;
  close(): Promise<void>;
}

/** Options for {@linkcode operate}. */
export interface OperateOptions {
  /** Whether a cache that does not exist is made. */
  readonly creates: boolean;
}

/**
 * The operations on the cache that `config` describes. A directory that nobody uses is opened here; one that
 * an instance uses, or a store that instances share, is operated by the instance at `ADMIN_ADDR`. Throws an
 * {@linkcode OperateError}.
 */
export async function operate(config: Config, options: OperateOptions): Promise<Operated> {
  const { cache } = config;
  if (!cache) throw new OperateError("The cache is off");
  const isOwn = cache.store.engine === "files" && cache.index.engine === "sqlite";
  if (isOwn && exists(join(cache.dir, "index.sqlite"))) {
    try {
      return await openHere(config);
    } catch (error) {
      const isLocked = error instanceof CacheOpenError && error.cause instanceof IndexLockedError;
      if (!isLocked) throw told(error);
    }
    return await askInstance(config, `Another process is using ${cache.dir}`);
  }
  try {
    return await askInstance(config);
  } catch (error) {
    if (!(error instanceof OperateError)) throw error;
  }
  if (isOwn && !options.creates) throw new OperateError(`There is no cache in ${cache.dir}`);
  try {
    return await openHere(config);
  } catch (error) {
    throw told(error);
  }
}

function told(error: unknown): unknown {
  return error instanceof CacheOpenError ? new OperateError(error.message) : error;
}

/** Opens the cache in this process: nobody else has it. */
async function openHere(config: Config): Promise<Operated> {
  // What is to be kept warm is so for who serves; here it would only delay the answer.
  const proxy = new Proxy({ ...config, warm: { ...config.warm, images: [] } });
  const close = () => proxy.close();
  try {
    await proxy.ready;
    if (!proxy.cache) {
      throw new OperateError("The cache cannot be opened: its disk fails or is full");
    }
  } catch (error) {
    await close();
    throw error;
  }
  const operations = new ProxyOperations(proxy);
  return {
    operations: {
      images: () => operations.images(),
      remove: (name) => operations.remove(name),
      warm: (images, options) => operations.warm(images, options),
      // What this process itself did says nothing.
      report: async () => ({ cache: (await operations.report()).cache }),
    },
    close,
  };
}

/** The instance at the operator's address; `because` says why it has to be that one. */
async function askInstance({ admin }: Config, because?: string): Promise<Operated> {
  const reason = because === undefined ? "" : `${because}, and `;
  if (!admin) throw new OperateError(`${reason}ADMIN_ADDR is off: nobody can be asked`);
  const operations = new RemoteOperations(admin);
  try {
    await operations.check();
  } catch (error) {
    if (!(error instanceof NotRunningError)) throw error;
    throw new OperateError(`${reason}${lowerFirst(error.message)}`);
  }
  return { operations, close: () => Promise.resolve() };
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
