"""The datasets known by name: publisher, files with their published sha256, and the settings each brings along.

A new dataset is a row here and a file beside it with its reader. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """A dataset known by name.

    Attributes:
        about: one line for `windtunnel list datasets`, with its terms.
        reader: "module:function" that takes the folder and returns a `parts.Dataset`; resolved when it is asked for.
        files: file name -> sha256; these and no others are read.
        fetch: where the publisher offers it and how its files are laid out here, one line each.
        defaults: fields of `data:` that hold unless the scenario says otherwise.
        instead: what it holds and which command uses that, where it has no interaction log; else "".
        package: installed package that ships it, and the folder inside; None: looked for in WINDTUNNEL_DATA only.
    """

    about: str
    reader: str
    files: Mapping[str, str]
    fetch: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    instead: str = ""
    package: tuple[str, str] | None = None

    @property
    def missing(self) -> str:
        """What to do where it is not found."""
        if self.package is not None:
            return self.fetch[0]
        return "put its folder into one of those of WINDTUNNEL_DATA (`windtunnel data fetch` says where it is offered)"


def _sums(text: str) -> Mapping[str, str]:
    """File name -> sha256, from lines as sha256sum writes them."""
    pairs = (line.split(maxsplit=1) for line in text.strip().splitlines())
    return {name: sha for sha, name in pairs}


GZIPPED = "files ending in .gz are the published text files compressed by `gzip -9n`, content unchanged"

DATASETS: Mapping[str, KnownDataset] = {
    "ml-100k": KnownDataset(
        about=(
            "MovieLens 100k: 943 users, 1,682 films, 100,000 ratings with times; age, gender, "
            "occupation (free for research with citation; read from the installed recbole package)"
        ),
        reader="simulator.datasets.movielens:read_ml_100k",
        files=_sums("""
            4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff  ml-100k.inter
            4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972  ml-100k.user
            51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532  ml-100k.item
        """),
        fetch=(
            "install recbole 1.2.1 (`pip install -c constraints.txt -e .`), which ships it",
            "publisher: GroupLens, grouplens.org/datasets/movielens/100k",
        ),
        defaults={
            "positive": "rating >= 4",
            "behaviours": ["rating"],
            "item_text": ["movie_title", "release_year", "class"],
            "item_categories": ["class"],
        },
        package=("recbole", "dataset_example/ml-100k"),
    ),
    "coat": KnownDataset(
        about=(
            "Coat Shopping: 290 people, 300 coats, 6,960 self-selected and 4,640 uniformly random "
            "ratings; gender, age (no terms stated; cite Schnabel et al. 2016)"
        ),
        reader="simulator.datasets.coat:read_coat",
        files=_sums("""
            f9088c6e95fa9a42e8be6a92fc77252b95b969e34ed1299c611420da68680873  train.ascii
            51fa28550f5bedebc6959d0e7b5e242b173c3c8d16317c7e49b89441304504ce  test.ascii
            a72e3142a413623c4a6b9d20c4f70fcc017e0db67cc3eb242116f69fb8fb9661  propensities.ascii
            593b59c63a3f983575d3a770b32158fdfa4e2e4f63aafffdee70d1600ff072f8  user_item_features/user_features.ascii
            3b8c825ad4445d4a46a400629c5fb43c805ff5a7982b2e436b69e7262c8a013a  user_item_features/user_features_map.txt
            72b08cc0766d3e9899231aea90c815b5bb08e07dcfba569d5f182da649099f5a  user_item_features/item_features.ascii
            2675dfaa38b89a9cbb1997f0cfcd46ed7e0e366dc515d12d95508d1f356e5d25  user_item_features/item_features_map.txt
        """),
        fetch=(
            "publisher: T. Schnabel, Cornell, www.cs.cornell.edu/~schnabts/mnar",
            "this copy: github.com/RyanWangZf/CVIB-Rec @ f9eccc94f882, folder data/coat",
        ),
        defaults={
            "positive": "rating >= 4",
            "behaviours": ["rating"],
            "columns": {"propensity": "propensity"},
            "item_text": ["gender_of_coat", "jackettype", "color"],
            "item_categories": ["jackettype"],
            "policy_inputs": ["location", "fashioninterest"],
            "sensitive": ["gender", "age"],
        },
    ),
    "kuairec-sample": KnownDataset(
        about=(
            "KuaiRec, part of the small matrix: 1,411 users, 2,519 short videos, 117,113 watch ratios "
            "without times; Chinese captions, categories (CC BY-SA 4.0)"
        ),
        reader="simulator.datasets.kuairec:read_kuairec_sample",
        files=_sums("""
            d64fa0aaf8e2b070a14bb274faf08c99310deb379db44d4f5ee76e13242004cd  small_matrix_part_random.txt.gz
            3613ce34b301f0a1e8ef1c554956bf0c8140d27df9e40a1afede52c1d17e11d9  user_features.csv.gz
            78743de6393297c119038ac883ec52afa8e85a933751b345f2f6d8862b17ae19  item_categories.csv.gz
            e3f5d095c12302df9d4868b8a12d41e3209c65aa898bfe79f012860759736114  kuairec_caption_category.csv.gz
        """),
        fetch=(
            "publisher: Kuaishou and USTC, kuairec.com",
            (
                "this copy: github.com/haoxuanli-pku/ICLR24-Kernel-Balancing @ 9a2f1e10497c "
                "data/kuai/random.txt as small_matrix_part_random.txt"
            ),
            "features and captions: github.com/iamztq666-commits/OneRec--GRPO @ 54d0c2288c07",
            GZIPPED,
        ),
        defaults={
            "positive": "watch_ratio >= 1",
            "behaviours": ["watch_ratio"],
            "item_text": ["caption", "topics", "category", "subcategory"],
            "item_categories": ["category"],
            "policy_inputs": ["user_active_degree", "is_video_author", "follow_user_num_range"],
        },
    ),
    "mind-small-sample": KnownDataset(
        about=(
            "MIND-small sample: 5,000 impressions of 4,637 users with 189,359 candidates and 7,542 "
            "clicks, and 2,000 news with categories (non-commercial research)"
        ),
        reader="simulator.datasets.mind:read_mind_small_sample",
        files=_sums("""
            4f758f2a57788feee4d062748c073de945cc3ce5bcdc0ea3be00cb0040098817  behaviors.tsv.gz
            b86af6ce09a43e27aad06cef80000c90d7582f26e25a944180957525921a3513  news.tsv.gz
        """),
        fetch=(
            "publisher: Microsoft, msnews.github.io",
            "this sample: github.com/Farabi667/AI-Term-Project @ c83c37b18c18, folder MINDsmall_train",
            GZIPPED,
        ),
        defaults={
            "positive": "click == 1",
            "columns": {"impression": "impression_id"},
            "item_text": ["title", "category", "subcategory"],
            "item_categories": ["category"],
        },
    ),
    "obd-women": KnownDataset(
        about=(
            "Open Bandit, women, small: 10,000 logged rounds of each of two policies, 46 items, 3 "
            "positions, true propensities (Apache-2.0)"
        ),
        reader="simulator.datasets.open_bandit:read_obd_women",
        files=_sums("""
            83e9f38cd0246c73a765206adb8829a28d66b8aed5d3c42b64b49b997ad48c7a  random/women.csv.gz
            b1ca4905f97703d196004f2ad4552c1e90c2afad8b50688d333b0d2dc0b33147  random/item_context.csv
            599ca5add90903ad82e3719db099b1ff4ac3692a658878e507bccb0ed50f194b  bts/women.csv.gz
            a56295bad066a558eb783055afd9279f5f4e209a4776eafc22151c53f0ac89d4  bts/item_context.csv
        """),
        fetch=(
            "publisher: ZOZO Research, research.zozo.com/data.html",
            (
                "this version: github.com/st-tech/zr-obp @ 8cbd5fa4558b, folders obd/random/women and "
                "obd/bts/women as random and bts"
            ),
            GZIPPED,
        ),
        instead=(
            "holds logged rounds of two policies with their propensities and no user ids; `windtunnel ope` uses them"
        ),
    ),
    "banking77": KnownDataset(
        about="Banking77: 13,083 customer-service queries in 77 intents, train and test (CC BY 4.0)",
        reader="simulator.datasets.banking77:read_banking77",
        files=_sums("""
            b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b  train.csv
            d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d  test.csv
            53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63  categories.json
        """),
        fetch=(
            "publisher: PolyAI, github.com/PolyAI-LDN/task-specific-datasets, folder banking_data",
            "this copy: commit 57ec275d8078",
        ),
        instead="holds customers' queries and their intents, nobody's choices; `task: support` uses them",
    ),
    "thucnews-titles": KnownDataset(
        about="THUCNews titles: 20,000 Chinese news titles in 10 classes (free for research with citation)",
        reader="simulator.datasets.thucnews:read_thucnews_titles",
        files=_sums("""
            005e8813ad639c219e5902dc84889202b4a717b4238497d26c3fbd5e43927a86  class.txt
            fa17b03b0a4c195916e63fefa3b41f80ea4445324a564016ef0323f977bdf60a  dev.txt.gz
            da2e6e423c254026fcb78f8ef78cacadb6097fdf71dd7e4f12843f743bf7f754  test.txt.gz
        """),
        fetch=(
            "publisher: Tsinghua NLP, thuctc.thunlp.org",
            (
                "this selection: github.com/649453932/Chinese-Text-Classification-Pytorch @ 6cb26819af7b, "
                "folder THUCNews/data"
            ),
            GZIPPED,
        ),
        instead=(
            "holds titles and their classes, nobody's choices; `simulator.datasets.read_dataset` "
            "gives them to fine-tuning"
        ),
    ),
}
"""Name -> dataset."""
