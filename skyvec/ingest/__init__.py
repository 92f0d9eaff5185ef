"""Foreign files into a survey: streaming, in a fixed order, resumable, all accounted for.

Every item of every source ends as a stored segment or as a row in ``rejects/`` with its reason.
Readers give the items of a file in a fixed order and shards are cut by what they hold alone, so a
run that was killed goes on where the last shard ended and leaves the same bytes.
"""

from skyvec.ingest.shards import misfit as misfit
from skyvec.ingest.sources import IngestError as IngestError
from skyvec.ingest.sources import expand as expand
from skyvec.ingest.stage import Counts as Counts
from skyvec.ingest.stage import ingest as ingest
from skyvec.ingest.tables import light_curves as light_curves
