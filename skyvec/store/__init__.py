"""A survey on disk: the single author of every file name, and of whole-or-not-at-all writing.

    mysurvey/
      survey.toml          name, schema version, how each part was made
      objects/             Parquet shards, one row a segment: light curves as nested lists, images
                           and stamps as little-endian bytes with their shape in the metadata
      rejects/             what ingest could not take: source, row, reason
      models/NAME/         recipe.toml, weights.safetensors, scores.json
      latents/NAME/        Parquet shards: id, target, ra, dec, latent, error
      index/NAME/          the neighbour index
      answers/VERB-NAME/   tables, pictures, recipe

Shards become visible by one rename and count only once their folder's ``manifest.json`` names
them; the manifest itself is replaced by one rename too. A stage that was killed leaves at most
unlisted files, which the next run removes. Only one process at a time writes a folder (``lock``).
Every function takes the survey's folder first.

A survey holds objects of one kind: light curves, images of one shape, or stamps of one shape.
"""

from skyvec.store.catalogue import column_kinds as column_kinds
from skyvec.store.catalogue import read_catalog as read_catalog
from skyvec.store.catalogue import read_columns as read_columns
from skyvec.store.columns import STAMP_COLUMNS as STAMP_COLUMNS
from skyvec.store.files import read_json as read_json
from skyvec.store.files import sha256 as sha256
from skyvec.store.files import write_atomic as write_atomic
from skyvec.store.files import write_json as write_json
from skyvec.store.files import write_table as write_table
from skyvec.store.files import write_text as write_text
from skyvec.store.latents import latent_shards as latent_shards
from skyvec.store.latents import read_latent_columns as read_latent_columns
from skyvec.store.latents import read_latents as read_latents
from skyvec.store.latents import vectors_of as vectors_of
from skyvec.store.latents import write_latents as write_latents
from skyvec.store.locks import lock as lock
from skyvec.store.manifests import clean as clean
from skyvec.store.manifests import read_manifest as read_manifest
from skyvec.store.manifests import write_manifest as write_manifest
from skyvec.store.names import MANIFEST as MANIFEST
from skyvec.store.names import SURVEY_FILE as SURVEY_FILE
from skyvec.store.names import TEMPORARY as TEMPORARY
from skyvec.store.names import StoreError as StoreError
from skyvec.store.names import answers_folder as answers_folder
from skyvec.store.names import index_folder as index_folder
from skyvec.store.names import latents_folder as latents_folder
from skyvec.store.names import model_folder as model_folder
from skyvec.store.names import model_names as model_names
from skyvec.store.names import objects_folder as objects_folder
from skyvec.store.names import rejects_folder as rejects_folder
from skyvec.store.names import shard_name as shard_name
from skyvec.store.objects import Objects as Objects
from skyvec.store.objects import append_objects as append_objects
from skyvec.store.objects import find_curves as find_curves
from skyvec.store.objects import find_images as find_images
from skyvec.store.objects import iterate_objects as iterate_objects
from skyvec.store.objects import read_objects as read_objects
from skyvec.store.rejects import finished_items as finished_items
from skyvec.store.rejects import read_rejects as read_rejects
from skyvec.store.rejects import rejected_items as rejected_items
from skyvec.store.rejects import withdraw_rejects as withdraw_rejects
from skyvec.store.stamps import read_ahead as read_ahead
from skyvec.store.stamps import read_stamp_block as read_stamp_block
from skyvec.store.stamps import stamp_blocks as stamp_blocks
from skyvec.store.surveys import check_survey as check_survey
from skyvec.store.surveys import create_survey as create_survey
from skyvec.store.surveys import note as note
from skyvec.store.surveys import object_shards as object_shards
from skyvec.store.surveys import read_notes as read_notes
from skyvec.store.surveys import survey_bands as survey_bands
from skyvec.store.surveys import survey_kind as survey_kind
from skyvec.store.surveys import survey_shape as survey_shape
