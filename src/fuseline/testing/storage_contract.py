"""What every storage promises: subclass `StorageContract` in your tests and give it a `storage` fixture.

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self):
            storage = MyStorage()
            yield storage
            storage.close()

The storage has to be empty. Where transactions of several processes go on side by side, subclass
`SharedStorageContract` too.
"""

from __future__ import annotations

from fuseline.testing.storage_cases import RowCases, TimerCases, ViewCases
from fuseline.testing.storage_letter_cases import LetterCases
from fuseline.testing.storage_registry_cases import LifeCases, PurgeCases, RegistryCases
from fuseline.testing.storage_thin_cases import ThinCases
from fuseline.testing.storage_thread_cases import SharedStorageContract, ThreadCases

__all__ = ["SharedStorageContract", "StorageContract"]


class StorageContract(
    RowCases,
    TimerCases,
    ViewCases,
    LetterCases,
    RegistryCases,
    PurgeCases,
    LifeCases,
    ThreadCases,
    ThinCases,
):
    """All cases that hold for every storage."""
