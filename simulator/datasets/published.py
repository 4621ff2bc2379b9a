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
        policies: logging policies whose rounds are an interaction log each, NAME/POLICY as `data.source`.
        package: installed package that ships it, and the folder inside; None: looked for in WINDTUNNEL_DATA only.
    """

    about: str
    reader: str
    files: Mapping[str, str]
    fetch: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    instead: str = ""
    policies: tuple[str, ...] = ()
    package: tuple[str, str] | None = None

    @property
    def missing(self) -> str:
        """What to do where it is not found."""
        if self.package is not None:
            return self.fetch[0]
        return "put its folder into one of those of WINDTUNNEL_DATA (`windtunnel data fetch` says where it is offered)"

    def refusal(self, name: str) -> str:
        """Why it cannot be the log of a recommend scenario, and what it is for."""
        return f"'{name}' {self.instead}; a recommend scenario needs an interaction log"

    def layout(self, name: str) -> str:
        """What `data check` will look for, once the files are there."""
        if self.package is not None:
            return f"found in that package, or as {name}/ in a folder of WINDTUNNEL_DATA: {', '.join(self.files)}"
        files = ", ".join(self.files)
        return f"put into {name}/ in a folder of WINDTUNNEL_DATA: {files}; then `windtunnel data check {name}`"


def log_of_policy(source: str) -> tuple[str, str] | None:
    """Dataset and logging policy of NAME/POLICY (`obd-women/bts`); None where it names none."""
    name, _, policy = source.partition("/")
    return (name, policy) if name in DATASETS and policy in DATASETS[name].policies else None


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
    "ml-latest-small": KnownDataset(
        about=(
            "MovieLens ml-latest-small: 610 users, 9,742 films, 100,836 ratings with times, tags; "
            "trailer features of 4,751 films, overviews of 1,886 (research; no demographics)"
        ),
        reader="simulator.datasets.movielens:read_ml_latest_small",
        files=_sums("""
            31bb504043c5bd56a22cc6a5d080cd9b7b86cad5a917b5dd46497c85a98517e0  ratings.csv.gz
            5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07  movies.csv
            92a9f8bb7916dceef6151209845788c3643f794dfa79d1feaec7121b5960399d  tags.csv
            15ea413fe8fef174b74929bd1128f67e1c27ba4bc9f479ae7cf3b4d13197cc65  LLVisualFeatures13K_Log.csv.gz
            9f8e6ea94f368ee8da051925ce82ea08b3425f1c2e8b441b9f99ddef5b8c2ef5  tmdb_overviews_subset.csv.gz
        """),
        fetch=(
            "publisher: GroupLens, grouplens.org/datasets/movielens/latest",
            (
                "movies.csv, tags.csv: github.com/cireneuguilhermeteixeira/all-minilm @ 460c738c46d2, "
                "folder ml-latest-small"
            ),
            ("ratings.csv: github.com/akankshsahu/Movie_Recommendation_Engine @ a17cd20f2a30, folder data/raw"),
            "trailer features: github.com/MaxDuong/Recommender-System @ bddf4a54a1fb, folder '12 Hybrid'",
            (
                "overviews: derived from TMDB (non-commercial, attribution), "
                "github.com/sangameshh31/movie-recommendation-system @ 12db3be233f4"
            ),
            GZIPPED,
        ),
        defaults={
            "positive": "rating >= 4",
            "behaviours": ["rating"],
            "item_text": ["title", "genres"],
            "item_categories": ["genres"],
        },
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
    "lastfm-2k": KnownDataset(
        about=(
            "Last.fm 2k (HetRec 2011): 1,892 users, 17,632 artists, 92,834 play counts, 186,479 tag "
            "assignments, 12,717 friendships; no times (non-commercial)"
        ),
        reader="simulator.datasets.lastfm:read_lastfm_2k",
        files=_sums("""
            b98355e3c57cea8e3ff873b7a60523c3fbbf46c175ca5706046568342e2f1bc8  user_artists.dat.gz
            5b236329422ef3105f7b9483f97fc0470d748ef72fa2d5ee0825c54eab26fc9f  artists.dat.gz
            a88f69349bca198a499a4b2e076c14288afc579b5083197bef70e01ac3344e42  tags.dat.gz
            7d787d79e71b66051564f3c8fd0b89772bdf5521ddb46927863bf0be3e8a9574  user_taggedartists.dat.gz
            eafe6639ac2ebcbbfba73cb78748799bc088516e1d18a882d1d37ff9bc0f27ae  user_friends.dat.gz
        """),
        fetch=(
            "publisher: HetRec 2011 through GroupLens, grouplens.org/datasets/hetrec-2011",
            ("user_artists, artists, tags, user_friends: github.com/rafaelpossas/admusic @ afcc86fc14ec, folder data"),
            "user_taggedartists: github.com/omarriaga/hybrid-recommender @ 41bfa287088e, folder data",
            GZIPPED,
        ),
        defaults={
            "positive": "plays_to_median > 1",
            "behaviours": ["plays"],
            "item_text": ["name", "tags"],
            "item_categories": ["genre"],
            "category_separator": ", ",
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
    "restaurant-consumer": KnownDataset(
        about=(
            "Restaurant & consumer data: 138 people, 130 restaurants, 1,161 ratings 0 to 2; 19 "
            "profile columns, sensitive ones among them (UCI)"
        ),
        reader="simulator.datasets.restaurants:read_restaurant_consumer",
        files=_sums("""
            2f0160c7f9ece4d490dcc30ef35c52d5907750862e74d86a24a80f7d7894a7fd  restaurant-data-with-consumer-ratings.zip
        """),
        fetch=(
            "publisher: CENIDET through UCI, archive.ics.uci.edu/dataset/232",
            "this copy: github.com/sidk09/Data-Mining-Competitors @ e023d527e394, unchanged",
        ),
        defaults={
            "positive": "rating >= 2",
            "behaviours": ["rating", "food_rating", "service_rating"],
            "item_text": ["name", "cuisine", "price", "dress_code", "alcohol"],
            "item_categories": ["cuisine"],
            "policy_inputs": ["drink_level", "interest"],
            "sensitive": ["marital_status", "religion", "birth_year"],
        },
    ),
    "emotify": KnownDataset(
        about=(
            "Emotify: 400 music clips, 8,407 annotations of felt emotion, liked and disliked; age, "
            "gender, mother tongue (cite; music non-commercial)"
        ),
        reader="simulator.datasets.emotify:read_emotify",
        files=_sums("""
            32229d7329e1245af3f9bd2e7005f51e1c8582ae1e48b9afa5cacb8cdcb65d71  data.csv
            74223a1bd4ddeb9a5aff408751ac5dadf2d19b1f14e27bcea6f5b75467ff1517  clips_8s_16k_ogg.zip
        """),
        fetch=(
            "publisher: Utrecht University, www2.projects.science.uu.nl/memotion/emotifydata",
            (
                "annotations and the mp3 of which the clips are the middle 8 s: "
                "github.com/sergi-andreu/ProjectMusicInformatics @ 474daaaf11ed"
            ),
        ),
        defaults={
            "positive": "liked == 1",
            "behaviours": ["disliked"],
            "item_text": ["genre"],
            "item_categories": ["genre"],
            "sensitive": ["gender", "age"],
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
            "holds logged rounds of two policies and no user ids; `windtunnel ope obd-women/random` "
            "and `.../bts` use them, and `data.source: obd-women/random` takes users who look alike for one"
        ),
        policies=("random", "bts"),
        defaults={
            "positive": "click == 1",
            "columns": {"position": "position", "propensity": "propensity", "session": "session"},
            "item_categories": ["kind"],
        },
    ),
    "esci-sample": KnownDataset(
        about=("Amazon Shopping Queries (ESCI), US: 150 queries, 6,764 products, 6,678 graded judgements (Apache-2.0)"),
        reader="simulator.datasets.esci:read_esci_sample",
        files=_sums("""
            6822147809fbee5b3ec9e28d9795c5b17de514d62ea511d4620bc13fc4613c0d  esci_us_judgments.json.gz
            cfd3b04e069033fa1561e2985260c83a3cb8344ee549754edfd0574a4aa14a49  ubi_ecommerce_products.json.gz
        """),
        fetch=(
            "publisher: Amazon, github.com/amazon-science/esci-data",
            (
                "this subset: github.com/opensearch-project/search-relevance @ d8be5d1b18de, folder "
                "src/test/data-esci (judgements)"
            ),
            (
                "products: github.com/opensearch-project/dashboards-search-relevance @ 15bc1794b638, "
                "folder server/sample_data/data"
            ),
        ),
        instead="holds search queries with graded products, nobody's choices; `task: search` uses them",
    ),
    "cranfield": KnownDataset(
        about=("Cranfield 1400: 1,400 abstracts, 225 queries, 1,837 graded judgements (public; no stated licence)"),
        reader="simulator.datasets.cranfield:read_cranfield",
        files=_sums("""
            b234544b6ceccd131520df4a3cb6d42aee6576eb577933d047e722bbfe7b0b09  cran.all.1400
            c1fb162c947bc79becf4143d169e3a20d8b42b6892d4c9e5dd8306d4c2eac6ec  cran.qry
            92e54b58dac0b980152178f350d892fae66c8a239b8a11715b835fb8d2f6bc0e  cranqrel
        """),
        fetch=(
            "publisher: Glasgow IR collections, ir.dcs.gla.ac.uk/resources/test_collections/cran",
            "this copy: github.com/mirahmed39/cosine_similarity @ 05a82beddada",
        ),
        instead="holds search queries with graded documents, nobody's choices; `task: search` uses them",
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
    "clothing-images": KnownDataset(
        about="Clothing dataset, small: 120 photographs of ten kinds of garment, no interactions (CC0)",
        reader="simulator.datasets.clothing:read_clothing_images",
        files=_sums("""
            945374a375fcfc9a75490ef40dbd5576f8fee48ce05dcd94fbbf73e56f6a77c7  test_12_per_class.zip
        """),
        fetch=(
            (
                "publisher: A. Grigorev, github.com/alexeygrigorev/clothing-dataset-small @ 119615165124; "
                "the first 12 file names of each class of the folder test, zipped"
            ),
        ),
        instead=("holds pictures and what they show, nobody's choices; `kind: multimodal` uses them beside a log"),
    ),
    "hillstrom": KnownDataset(
        about=(
            "Hillstrom's e-mail challenge: a randomised experiment on 64,000 customers, three arms; "
            "visit, conversion, spend (open challenge)"
        ),
        reader="simulator.datasets.hillstrom:read_hillstrom",
        files=_sums("""
            1bcbb5b3aeb0c7059506ddeda3072f09a14d0c3f05f0330f762a60601303140e  hillstrom.csv.gz
        """),
        fetch=(
            "publisher: K. Hillstrom, MineThatData, blog.minethatdata.com",
            "this copy: github.com/carlosquintanillaa/Datasets @ bd475633095c",
            GZIPPED,
        ),
        instead=(
            "holds a randomised treatment and its outcomes, no items; `windtunnel effect` reads its hillstrom.csv.gz"
        ),
    ),
}
"""Name -> dataset."""
