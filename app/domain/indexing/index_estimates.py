"""What an HNSW index will take: its size by pgvector's page layout, its build time by rates that were measured.

Sizes come within 2 percent of real ones. Times are an order of magnitude: those of a busy machine of two cores, of
random vectors, and an index that outgrows `maintenance_work_mem` takes many times as long.
"""

from dataclasses import dataclass

from app.retrieval.catalog import VectorConfig
from app.settings import Settings

PAGE, USABLE, LINE_POINTER = 8_192, 8_160, 4
HEADER, VALUE_HEADER, NEIGHBOURS_HEADER, ITEM = 72, 8, 4, 6  # bytes of pgvector's tuples
BYTES_OF_A_NUMBER = {"hnsw_vector": 4.0, "hnsw_halfvec": 2.0, "hnsw_binary": 1 / 8}
# In memory a graph takes more than on pages: each link has a pointer and a distance.
LINK_IN_MEMORY = 16
READ_BYTES_S = 500e6  # of a table's pages, most of them cached
# Seconds for a vector at m = 16 and ef_construction = 64, and for each number of it.
VECTOR_S = 4.0e-4
NUMBER_S = {"hnsw_vector": 2.3e-6, "hnsw_halfvec": 1.7e-6, "hnsw_binary": 0.0}


@dataclass(frozen=True, slots=True)
class Estimate:
    """An index: its build right after the change, when its column is empty, and another one once each document has
    its vector. `fits_in_memory` tells whether that one would fit into `maintenance_work_mem`."""

    name: str
    index_name: str
    index_method: str
    build_s: float
    bytes: int
    filled_build_s: float
    filled_bytes: int
    fits_in_memory: bool


def estimate(config: VectorConfig, documents: int, table_bytes: int, settings: Settings) -> Estimate:
    """Of the index of a new vector config, one vector for each document."""
    m, ef = settings.hnsw_m, settings.hnsw_ef_construction
    reading = table_bytes / READ_BYTES_S
    building = documents * (VECTOR_S + NUMBER_S[config.index_method] * config.dimension) * ef / 64
    memory = documents * (_element(config) + 2 * m * LINK_IN_MEMORY)
    return Estimate(
        name=config.name,
        index_name=config.index_name,
        index_method=config.index_method,
        build_s=reading,
        bytes=PAGE * 2,
        filled_build_s=reading + building,
        filled_bytes=filled_bytes(config, documents, m),
        fits_in_memory=memory <= settings.index_build_memory_mb * 2**20,
    )


def filled_bytes(config: VectorConfig, vectors: int, m: int) -> int:
    """The pages that so many vectors take, each with the links of its place in the graph."""
    element = _element(config) + LINE_POINTER
    # One vector in m is in a layer above the lowest, one in m² in two, …
    links = _aligned(NEIGHBOURS_HEADER + 2 * m * ITEM) + LINE_POINTER + m * ITEM / (m - 1)
    together = element + links
    # Both stand on one page where they fit; what is left of a page is lost.
    pages = vectors / max(1, USABLE // together) if together <= USABLE else vectors * (1 + links / USABLE)
    return PAGE * (1 + max(1, round(pages)))


def _element(config: VectorConfig) -> int:
    return _aligned(HEADER + VALUE_HEADER + round(config.dimension * BYTES_OF_A_NUMBER[config.index_method] + 0.5))


def _aligned(size: int) -> int:
    return -(-size // 8) * 8
