/**
 * Which of several instances does for all what one is to do.
 *
 * @module
 */
import { UnreachableError } from "../blob_store.ts";
import type { Lease, Leases } from "../lease.ts";

/** One duty that an instance has until it ends, or loses its lease. */
export class Leader {
  readonly #leases: Pick<Leases, "acquire">;
  readonly #duty: string;
  #lease: Lease | undefined;
  #isClosed = false;

  constructor(leases: Pick<Leases, "acquire">, duty: string) {
    this.#leases = leases;
    this.#duty = duty;
  }

  /**
   * Whether the duty is ours: it becomes so where nobody has it. False while nobody can be asked who has it. Throws what
   * Redis says.
   */
  async isOurs(): Promise<boolean> {
    if (await this.#lease?.isHeld()) return true;
    await this.#lease?.release();
    this.#lease = undefined;
    try {
      const taken = await this.#leases.acquire(this.#duty);
      if (!("lease" in taken)) return false;
      this.#lease = taken.lease;
    } catch (error) {
      if (error instanceof UnreachableError) return false;
      throw error;
    }
    if (this.#isClosed) await this.close();
    return !this.#isClosed;
  }

  /** Leaves the duty to another. Never throws. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#lease?.release();
    this.#lease = undefined;
  }
}
