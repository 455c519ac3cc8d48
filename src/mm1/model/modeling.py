"""MM1: a vision tower, a connector and a decoder, as one `transformers` model.

Letters of shapes: B rows of the batch, L tokens of a row, N images, M target positions,
D the decoder's width, V the vocabulary.
"""

# No `from __future__ import annotations`: the library reads from the types which outputs can be asked for.

from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel
from transformers.cache_utils import Cache
from transformers.modeling_utils import slice_logits_to_keep
from transformers.processing_utils import Unpack
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from mm1.errors import UserValueError
from mm1.model.attention import NAMES as PACKED_ATTENTION
from mm1.model.attention import NO_MASK
from mm1.model.base import MM1PreTrainedModel
from mm1.model.borders import BORDERS, Borders, has_windows, needs_borders
from mm1.model.configuration import MM1Config
from mm1.model.connectors import build_connector
from mm1.model.convolutional import ConvolutionalTower  # noqa: F401  (registers itself with AutoModel)
from mm1.model.generation import MM1GenerationMixin, unmatched
from mm1.model.loss import mean_loss, next_tokens, summed_loss
from mm1.model.outputs import MM1ImageFeatures, MM1ModelOutput, MM1Output
from mm1.model.routing import is_padding, routing
from mm1.model.sparse import EXPERTS_EP_PLAN, EXPERTS_TP_PLAN, sparsify, take_routed
from mm1.model.vision import reads_inner_layer, tower_outputs


class OutputKwargs(TypedDict, total=False):
    """What can be asked for besides."""

    output_attentions: bool | None
    output_hidden_states: bool | None
    return_dict: bool | None


class MM1Kwargs(OutputKwargs, total=False):
    """What `MM1ForConditionalGeneration` takes besides.

    `shift_labels` is no argument of its own: the library's Trainer would ask every row for what is named a label.
    """

    shift_labels: torch.Tensor | None
    z_loss: float | None


class MM1Model(MM1PreTrainedModel):
    """Vision tower, connector and decoder, without the vocabulary head."""

    def __init__(self, config: MM1Config) -> None:
        super().__init__(config)
        config.name_experts()  # they may have been asked for after the configuration was made
        if config.moe_num_experts:  # the experts are MM1's own, and a dense part refuses some ways to compute them
            config.vision_config._experts_implementation = config.text_config._experts_implementation = None
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.connector = build_connector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        sparsify(self.language_model, config)
        if reads_inner_layer(config):
            # The library does so at the first forward, under a lock that breaks a compiled graph.
            maybe_install_capturing_hooks(self.vision_tower)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the decoder's token embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the decoder's token embedding."""
        self.language_model.set_input_embeddings(value)

    def init_parallel_plans(self) -> None:
        """Copy the plans of tower and decoder, as the library does, and add the sparse layers'."""
        super().init_parallel_plans()
        if self.config.moe_num_experts:
            self.tp_plan.update({f"language_model.{name}": style for name, style in EXPERTS_TP_PLAN.items()})
            self.ep_plan.update({f"language_model.{name}": style for name, style in EXPERTS_EP_PLAN.items()})

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Unpack[OutputKwargs]) -> MM1ImageFeatures:
        """Encode images to the tokens that the decoder reads.

        Args:
            pixel_values: Normalised images `(N, 3, image_size, image_size)`.
            kwargs: Passed to the vision tower.

        Returns:
            The tokens as `pooler_output`, `(N, tokens per image, D)`, beside the tower's output; a tuple with
            `return_dict=False`.
        """
        patches, outputs = tower_outputs(
            self.vision_tower, self.config, pixel_values.to(self.vision_tower.dtype), **kwargs
        )
        return MM1ImageFeatures(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=self.connector(patches),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_positions: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        use_cache: bool | None = None,
        output_router_logits: bool | None = None,
        **kwargs: Unpack[OutputKwargs],
    ) -> MM1ModelOutput:
        """Run the decoder over text and images.

        Args:
            input_ids: `(B, L)`; the image token stands wherever a token of an image goes.
            pixel_values: `(N, 3, image_size, image_size)`, the images of the whole batch in reading order.
            attention_mask: `(B, L)`, 0 at padding. None for packed rows.
            position_ids: `(B, L)`. With `attention_mask` None, every restart begins another document, and
                attention never crosses from one to the next.
            past_key_values: Cache of earlier tokens.
            inputs_embeds: `(B, L, D)` in place of `input_ids`.
            image_positions: `(N * tokens per image,)`, where the images' tokens go in the flattened
                `(B * L)`; saves searching `input_ids` for them, which synchronises a GPU. If it is empty, images
                are encoded and go nowhere: so a rank without images keeps step with ranks that have some. Tokens
                with the position `B * L` go nowhere either: those of images that pad a batch to a fixed shape.
            mm_encoder_outputs: In place of `pixel_values`: what `get_image_features` returned, as `image`.
            use_cache: Whether to fill a cache. Default: the decoder's own, except for packed rows,
                where a cache would make attention cross documents' borders.
            output_router_logits: Whether to return the routers' logits. Default: as `text_config` says.
            kwargs: Passed to the decoder. For packed rows `mm1.model.borders.Borders.arguments` may be among them, so
                that attention need not look for documents.

        Raises:
            UserValueError: If there are more or fewer image tokens than the images need.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of the two")
        embeds = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        images = self._images(pixel_values, mm_encoder_outputs)
        if images is not None:
            images = images.to(embeds.device, embeds.dtype)
            if image_positions is None:
                image_positions = self.image_token_mask(input_ids, embeds).flatten().nonzero().squeeze(1)
                embeds = _place(images, image_positions, embeds, past > 0)
            elif len(image_positions):
                embeds = _place(images, image_positions, embeds, past > 0)
            else:  # a stand-in image, for ranks that must run the tower because another has images
                embeds = embeds + 0 * images.sum()
        elif image_positions is not None and len(image_positions):
            raise UserValueError(f"{len(image_positions)} image tokens in the text, but no image: give pixel_values")
        if use_cache is None and past_key_values is None and attention_mask is None:
            use_cache = False if position_ids is not None else None
        packed = attention_mask is None and position_ids is not None and past_key_values is None
        outputs = self.language_model(
            attention_mask=self._mask_of(attention_mask, embeds, kwargs, position_ids if packed else None),
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        routed = take_routed(self.language_model)
        text_config = self.config.text_config
        padding = is_padding(embeds.shape[:2], past, attention_mask, input_ids, position_ids, text_config.pad_token_id)
        found = routing(routed, self.config, padding)
        if output_router_logits is None:
            output_router_logits = self.config.output_router_logits
        return MM1ModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=images,
            router_logits=tuple(logits for logits, _ in routed) if output_router_logits and routed else None,
            **(found.fields if found else {}),
        )

    def _mask_of(
        self,
        attention_mask: torch.Tensor | None,
        embeds: torch.Tensor,
        kwargs: Any,
        packed: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """Return the decoder's mask, and give its attention the borders of packed rows where it needs them.

        Args:
            attention_mask: As of `forward`.
            embeds: `(B, L, D)`.
            kwargs: The decoder's further arguments, which are changed in place.
            packed: `(B, L)` positions in packed rows; None for other rows.
        """
        config = self.config.text_config
        if packed is None:
            for name in BORDERS:
                kwargs.pop(name, None)
            return attention_mask
        if needs_borders(config) and kwargs.get(BORDERS[0]) is None:
            kwargs |= Borders.of(packed.expand(len(embeds), -1)).arguments()
        given = kwargs.get(BORDERS[0]) is not None
        apart = given and config._attn_implementation in PACKED_ATTENTION and not has_windows(config)
        return embeds.new_empty(NO_MASK) if apart else attention_mask

    def _images(
        self, pixel_values: torch.Tensor | None, mm_encoder_outputs: dict[str, Any] | None
    ) -> torch.Tensor | None:
        """Return the image tokens, `(N, tokens per image, D)`, of pixels or as they were encoded before."""
        encoded = (mm_encoder_outputs or {}).get("image")
        if pixel_values is not None and len(pixel_values):
            if encoded is not None:
                raise ValueError("give pixel_values or mm_encoder_outputs, one of the two")
            encoded = self.get_image_features(pixel_values, return_dict=True)
        if encoded is None:
            return None
        features = encoded.pooler_output
        return features if isinstance(features, torch.Tensor) else torch.stack(list(features))

    def image_token_mask(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """Return where image tokens stand, `(B, L)` bool.

        Args:
            input_ids: `(B, L)`.
            inputs_embeds: `(B, L, D)`, read where `input_ids` are None.
        """
        token = self.config.image_token_id
        if input_ids is not None:
            return input_ids == token
        assert inputs_embeds is not None
        return (inputs_embeds == self.get_input_embeddings()(torch.tensor(token, device=inputs_embeds.device))).all(-1)


class MM1ForConditionalGeneration(MM1PreTrainedModel, MM1GenerationMixin):
    """MM1 with its vocabulary head: trains, scores and generates."""

    # The library declares a dict.
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012  (as above)

    def __init__(self, config: MM1Config) -> None:
        super().__init__(config)
        self.model = MM1Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        # Its place is filled by an encoder: as a word it means nothing and would be taken for an image.
        self.generation_config.suppress_tokens = [config.image_token_id]
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the vocabulary head."""
        return self.lm_head

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Unpack[OutputKwargs]) -> MM1ImageFeatures:
        """Encode images to the tokens that the decoder reads: `MM1Model.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        image_positions: torch.Tensor | None = None,
        target_positions: torch.Tensor | None = None,
        target_ids: torch.Tensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        use_cache: bool | None = None,
        output_router_logits: bool | None = None,
        **kwargs: Unpack[MM1Kwargs],
    ) -> MM1Output:
        """Compute logits, and the loss where targets are given.

        There are two ways to give targets. `labels` is the library's: full logits `(B, L, V)`. With
        `target_positions` and `target_ids` the vocabulary is computed at the target positions alone,
        which for a packed row of mostly image tokens saves most of the memory of training.

        Args:
            input_ids: See `MM1Model.forward`.
            pixel_values: See `MM1Model.forward`.
            attention_mask: See `MM1Model.forward`.
            position_ids: See `MM1Model.forward`.
            past_key_values: See `MM1Model.forward`.
            inputs_embeds: See `MM1Model.forward`.
            labels: `(B, L)`, the token at each place, -100 where there is no target; shifted here. Image tokens of
                images are no targets, whether or not the labels hold them.
            logits_to_keep: How many of the last positions get logits (0: all), or which.
            image_positions: See `MM1Model.forward`.
            target_positions: `(M,)`, positions in the flattened `(B * L)` whose output predicts a
                target token (the one after it).
            target_ids: `(M,)`, those tokens.
            num_items_in_batch: What the summed loss is divided by; default the target tokens given here.
                Lets the mean run over several micro-batches or ranks: the routers' losses of each then count by its
                target tokens.
            mm_encoder_outputs: See `MM1Model.forward`.
            use_cache: See `MM1Model.forward`.
            output_router_logits: See `MM1Model.forward`.
            kwargs: `shift_labels` in place of `labels`, `(B, L)`: at each place the token after it. `z_loss`, with
                `target_positions` and `target_ids`: the output has `loss_sum` and `target_losses` in place of `loss`
                and `logits`, so that logits of many targets are never all in memory; its value is the weight of the
                squared log-partitions. The rest is passed to the decoder.
        """
        shift_labels, z_loss = kwargs.pop("shift_labels", None), kwargs.pop("z_loss", None)
        if target_positions is not None:
            use_cache = False
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_positions=image_positions,
            mm_encoder_outputs=mm_encoder_outputs,
            use_cache=use_cache,
            output_router_logits=output_router_logits,
            return_dict=True,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        loss = logits = targets = loss_sum = target_losses = None
        if target_positions is not None and target_ids is not None and z_loss is not None:
            rows = hidden.flatten(0, 1).index_select(0, target_positions)
            loss_sum, target_losses = summed_loss(rows, self.lm_head, target_ids, z_loss)
        elif target_positions is not None:
            logits = self.lm_head(hidden.flatten(0, 1).index_select(0, target_positions))
            targets = target_ids
        else:
            logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
            # Embeddings may hold features in their places already.
            images = outputs.image_hidden_states is not None or inputs_embeds is not None
            targets = next_tokens(labels, shift_labels, self.config.image_token_id if images else None)
        if targets is not None and logits is not None:
            loss = mean_loss(self.loss_function, logits, targets, num_items_in_batch, outputs.aux_loss)
        return MM1Output(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
            router_logits=outputs.router_logits,
            aux_loss=outputs.aux_loss,
            router_balance=outputs.router_balance,
            router_z=outputs.router_z,
            router_counts=outputs.router_counts,
            loss_sum=loss_sum,
            target_losses=target_losses,
        )


def _place(
    images: torch.Tensor, image_positions: torch.Tensor, embeds: torch.Tensor, cached: bool = False
) -> torch.Tensor:
    """Return the embeddings with the images' tokens laid over their positions; the position after the last is none."""
    features = images.flatten(0, 1)
    if len(features) != len(image_positions):
        raise unmatched(len(image_positions), len(images), images.shape[1], cached)
    places = F.pad(embeds.flatten(0, 1), (0, 0, 0, 1))  # a copy, with a row for tokens that go nowhere
    return places.index_copy_(0, image_positions, features)[:-1].view_as(embeds)
