"""The part of onnx.proto that the runtime needs; the onnx package is heavy and only for exports."""

from __future__ import annotations

from functools import cache
from typing import Any


def parse_model(content: bytes) -> Any:
    """Parse a model, which can be modified and serialized again."""
    return _model_type().FromString(content)


@cache
def _model_type() -> Any:
    """Build the message type; protobuf preserves the fields that are not listed here.

    Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415

    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="issun.proto",
        package="issun",
        # Editions track field presence as proto2 does and reject strings that are not UTF-8.
        syntax="editions",
        edition=descriptor_pb2.EDITION_2023,
    )
    plain = {
        "string": fields.TYPE_STRING,
        "bytes": fields.TYPE_BYTES,
        "int32": fields.TYPE_INT32,
        "int64": fields.TYPE_INT64,
    }
    # Message -> (field, number, type); * marks a repeated field.
    schema: dict[str, list[tuple[str, int, str]]] = {
        "Entry": [("key", 1, "string"), ("value", 2, "string")],
        "Tensor": [
            ("dims", 1, "int64*"),
            ("data_type", 2, "int32"),
            ("name", 8, "string"),
            ("raw_data", 9, "bytes"),
            ("external_data", 13, "Entry*"),
            ("data_location", 14, "int32"),
        ],
        "Sparse": [("values", 1, "Tensor"), ("indices", 2, "Tensor")],
        "Attribute": [
            ("name", 1, "string"),
            ("i", 3, "int64"),
            ("t", 5, "Tensor"),
            ("g", 6, "Graph"),
            ("tensors", 10, "Tensor*"),
            ("graphs", 11, "Graph*"),
            ("tp", 14, "Opaque"),
            ("type_protos", 15, "Opaque*"),
            ("type", 20, "int32"),
            ("sparse_tensor", 22, "Sparse"),
            ("sparse_tensors", 23, "Sparse*"),
        ],
        "Node": [
            ("input", 1, "string*"),
            ("output", 2, "string*"),
            ("op_type", 4, "string"),
            ("attribute", 5, "Attribute*"),
            ("domain", 7, "string"),
        ],
        "Graph": [
            ("node", 1, "Node*"),
            ("initializer", 5, "Tensor*"),
            ("input", 11, "Value*"),
            ("sparse_initializer", 15, "Sparse*"),
        ],
        "Value": [("name", 1, "string"), ("type", 2, "Type")],
        "Type": [("tensor_type", 1, "TensorType")],
        "TensorType": [("elem_type", 1, "int32"), ("shape", 2, "Shape")],
        "Shape": [("dim", 1, "Dimension*")],
        "Dimension": [("dim_value", 1, "int64"), ("dim_param", 2, "string")],
        "Model": [
            ("graph", 7, "Graph"),
            ("metadata_props", 14, "Entry*"),
            ("training_info", 20, "Opaque*"),
            ("functions", 25, "Opaque*"),
        ],
        "Opaque": [],
    }
    for name, described in schema.items():
        message = file.message_type.add(name=name)
        for field, number, kind in described:
            one = kind.removesuffix("*")
            message.field.add(
                name=field,
                number=number,
                label=fields.LABEL_OPTIONAL if one == kind else fields.LABEL_REPEATED,
                type=plain.get(one, fields.TYPE_MESSAGE),
                type_name=None if one in plain else f".issun.{one}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("issun.Model"))
