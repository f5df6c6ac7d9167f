"""An attention backend of your own: which rows read which slots is decided for it, and it computes softmax(QKᵀ)V.

Shape legend: N rows of the forward, H query heads, K key/value heads, D head size (V of values), S slots of the pool;
G groups in a bucket, R rows a group, U slots a group.
"""

from transformers import AutoModelForCausalLM, AutoTokenizer

from multiverse import LLM, SamplingParams
from multiverse.backends.buckets import BucketPlan
from multiverse.backends.kv_pool import Call
from multiverse.backends.torch import TorchBackend
from multiverse.engine.model import embedded_model, prepare

QUESTION = (
    "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it, takes away 4 and adds 9. "
    "What is the total?"
)


class PlainBackend(TorchBackend):
    """Attention in four lines of torch, in double precision, head by head.

    Attributes:
        read: bytes of keys and values that were read: a prefix that branches share counts once.
    """

    read = 0

    def attend_bucket(self, call: Call, plan: BucketPlan) -> None:
        """Write the output of the rows of one bucket."""
        bucket = plan.bucket
        key_GKUD, value_GKUV = plan.gather(call.key_SKD), plan.gather(call.value_SKV)
        self.read += (key_GKUD.numel() + value_GKUV.numel()) * key_GKUD.element_size()
        visible_GRU = plan.visible(call.window)
        folds = call.query_NHD.shape[1] // key_GKUD.shape[1]
        for head in range(call.query_NHD.shape[1]):
            key_GUD, value_GUV = key_GKUD[:, head // folds].double(), value_GKUV[:, head // folds].double()
            score_GRU = call.scale * call.query_NHD[bucket.row_GR, head].double() @ key_GUD.transpose(1, 2)
            if visible_GRU is not None:
                score_GRU = score_GRU.masked_fill(~visible_GRU, float("-inf"))
            out_GRV = (score_GRU.softmax(-1) @ value_GUV).to(call.out_NHV.dtype)
            real_GR = slice(None) if bucket.real_GR is None else bucket.real_GR
            call.out_NHV[bucket.row_GR[real_GR], head] = out_GRV[real_GR]


def main() -> None:
    folder = str(embedded_model())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model.eval().requires_grad_(False)
    own = LLM.of(prepare(model, tokenizer, folder, PlainBackend()))
    (found,) = own.chat([{"role": "user", "content": QUESTION}], SamplingParams(temperature=0))
    text = [*found.prompt_token_ids, *found.token_ids]  # the question as well: the model is hardly ever unsure of an answer
    (mine,), (theirs,) = own.score([text]), LLM().score([text])
    differ = max(abs(a - b) for a, b in zip(mine.logprobs, theirs.logprobs, strict=True) if a is not None and b is not None)
    print("answer:", found.answer)
    backend = own.engine.backend  # a copy with a pool of its own
    assert isinstance(backend, PlainBackend)
    print(f"log-probabilities differ by {differ:.0e} from the package's; {backend.read / 1e6:.1f} MB of keys and values read")


if __name__ == "__main__":
    main()
