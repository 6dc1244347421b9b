"""Every store of ours keeps the contract, and the contract finds stores that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.caches.diskstore import DiskStore
from agentflow.caches.memory import MemoryStore
from agentflow.caches.store import Entry, Store
from agentflow.testing import StoreContract


class TestMemoryStore(StoreContract):
    def make(self) -> Store:
        return MemoryStore()


class TestDiskStore(StoreContract):
    persistent = True

    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "cache"

    def make(self) -> Store:
        return DiskStore(self.folder, patience=60)


class Forgetful(MemoryStore):
    """Breaks the contract: a put of a key that is held is ignored."""

    def put(self, key: str, entry: Entry) -> None:
        if self.get_now(key) is None:
            super().put(key, entry)


class TheContractOfForgetful(StoreContract):
    def make(self) -> Store:
        return Forgetful()


def test_the_contract_finds_a_store_that_breaks_it() -> None:
    contract = TheContractOfForgetful()

    contract.test_a_deleted_key_is_a_miss()
    with pytest.raises(AssertionError):
        contract.test_a_later_entry_takes_the_place_of_an_earlier_one()
