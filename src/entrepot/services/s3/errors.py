"""AWS's errors of S3. Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"""

from entrepot.errors import AwsError


class NoSuchBucketError(AwsError):
    """The bucket does not exist."""

    code = "NoSuchBucket"
    status = 404

    def __init__(self, bucket: str) -> None:
        super().__init__("The specified bucket does not exist", BucketName=bucket)


class NoSuchKeyError(AwsError):
    """No object has the key."""

    code = "NoSuchKey"
    status = 404

    def __init__(self, key: str) -> None:
        super().__init__("The specified key does not exist.", Key=key)


class NoSuchVersionError(AwsError):
    """The object has no such version."""

    code = "NoSuchVersion"
    status = 404

    def __init__(self, key: str, version_id: str) -> None:
        super().__init__("The specified version does not exist.", Key=key, VersionId=version_id)


class NotFoundError(AwsError):
    """What HEAD answers, which has no body to say more in."""

    code = "404"
    status = 404

    def __init__(self) -> None:
        super().__init__("Not Found")


class MethodNotAllowedError(AwsError):
    """The version named is a delete marker, which can only be deleted."""

    code = "MethodNotAllowed"
    status = 405

    def __init__(self, method: str = "GET") -> None:
        super().__init__(
            "The specified method is not allowed against this resource.", Method=method, ResourceType="DeleteMarker"
        )


class NoSuchUploadError(AwsError):
    """The multipart upload does not exist: never begun, aborted, or completed."""

    code = "NoSuchUpload"
    status = 404

    def __init__(self, upload_id: str) -> None:
        super().__init__(
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted "
            "or completed.",
            UploadId=upload_id,
        )


class NoSuchTagSetError(AwsError):
    """Nothing is tagged."""

    code = "NoSuchTagSet"
    status = 404


class BucketAlreadyOwnedByYouError(AwsError):
    """The bucket exists, and it is the caller's."""

    code = "BucketAlreadyOwnedByYou"
    status = 409

    def __init__(self, bucket: str) -> None:
        super().__init__(
            "Your previous request to create the named bucket succeeded and you already own it.", BucketName=bucket
        )


class BucketNotEmptyError(AwsError):
    """A bucket with versions in it cannot be deleted."""

    code = "BucketNotEmpty"
    status = 409

    def __init__(self, bucket: str, *, versioned: bool) -> None:
        advice = ". You must delete all versions in the bucket." if versioned else ""
        super().__init__(f"The bucket you tried to delete is not empty{advice}", BucketName=bucket)


class InvalidBucketNameError(AwsError):
    """The name breaks the naming rules."""

    code = "InvalidBucketName"
    status = 400

    def __init__(self, bucket: str) -> None:
        super().__init__("The specified bucket is not valid.", BucketName=bucket)


class KeyTooLongError(AwsError):
    """The key has more than 1,024 bytes in UTF-8."""

    code = "KeyTooLongError"
    status = 400

    def __init__(self, size_bytes: int) -> None:
        super().__init__("Your key is too long", Size=str(size_bytes), MaxSizeAllowed="1024")


class PreconditionFailedError(AwsError):
    """A condition of the request does not hold."""

    code = "PreconditionFailed"
    status = 412

    def __init__(self, condition: str) -> None:
        super().__init__("At least one of the pre-conditions you specified did not hold", Condition=condition)


class NotModifiedError(AwsError):
    """A conditional GET found what the caller has already; the wire answers 304 without a body."""

    code = "304"
    status = 304

    def __init__(self) -> None:
        super().__init__("Not Modified")


class InvalidRangeError(AwsError):
    """The range lies outside the object."""

    code = "InvalidRange"
    status = 416

    def __init__(self, requested: str, size_bytes: int) -> None:
        super().__init__(
            "The requested range is not satisfiable", RangeRequested=requested, ActualObjectSize=str(size_bytes)
        )


class EntityTooSmallError(AwsError):
    """A part other than the last has less than 5 MiB."""

    code = "EntityTooSmall"
    status = 400

    def __init__(self, size_bytes: int, number: int, etag: str) -> None:
        super().__init__(
            "Your proposed upload is smaller than the minimum allowed size",
            ProposedSize=str(size_bytes),
            MinSizeAllowed="5242880",
            PartNumber=str(number),
            ETag=etag,
        )


class EntityTooLargeError(AwsError):
    """A PUT, a part or an object is larger than S3 allows."""

    code = "EntityTooLarge"
    status = 400

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            "Your proposed upload exceeds the maximum allowed size",
            ProposedSize=str(size_bytes),
            MaxSizeAllowed=str(limit_bytes),
        )


class IncompleteBodyError(AwsError):
    """Fewer bytes came than Content-Length says."""

    code = "IncompleteBody"
    status = 400

    def __init__(self) -> None:
        super().__init__("You did not provide the number of bytes specified by the Content-Length HTTP header")


class InvalidPartError(AwsError):
    """A part named at completion was not uploaded, or has another ETag."""

    code = "InvalidPart"
    status = 400

    def __init__(self, upload_id: str, number: int, etag: str) -> None:
        super().__init__(
            "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
            "specified entity tag may not match the part's entity tag.",
            UploadId=upload_id,
            PartNumber=str(number),
            ETag=etag,
        )


class InvalidPartOrderError(AwsError):
    """The parts named at completion are not in ascending order."""

    code = "InvalidPartOrder"
    status = 400

    def __init__(self, upload_id: str) -> None:
        super().__init__(
            "The list of parts was not in ascending order. Parts must be ordered by part number.", UploadId=upload_id
        )


class InvalidRequestError(AwsError):
    """The request makes no sense as it is."""

    code = "InvalidRequest"
    status = 400


class InvalidArgumentError(AwsError):
    """One argument is not valid."""

    code = "InvalidArgument"
    status = 400

    def __init__(self, message: str, name: str, value: str) -> None:
        super().__init__(message, ArgumentName=name, ArgumentValue=value)


class InvalidDigestError(AwsError):
    """Content-MD5 is not the Base64 of 16 bytes."""

    code = "InvalidDigest"
    status = 400

    def __init__(self) -> None:
        super().__init__("The Content-MD5 you specified was invalid.")


class InvalidUriError(AwsError):
    """The key is not valid UTF-8."""

    code = "InvalidURI"
    status = 400

    def __init__(self) -> None:
        super().__init__("Couldn't parse the specified URI.")


class BadDigestError(AwsError):
    """The content that arrived is not the content that the caller's checksum describes."""

    code = "BadDigest"
    status = 400

    def __init__(self, algorithm: str) -> None:
        super().__init__(f"The {algorithm} you specified did not match the calculated checksum.")


class MetadataTooLargeError(AwsError):
    """User metadata has more than 2 KB."""

    code = "MetadataTooLarge"
    status = 400

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            "Your metadata headers exceed the maximum allowed metadata size",
            Size=str(size_bytes),
            MaxSizeAllowed="2048",
        )


class MalformedXmlError(AwsError):
    """The request's document lacks something, or has too much of it."""

    code = "MalformedXML"
    status = 400

    def __init__(self) -> None:
        super().__init__("The XML you provided was not well-formed or did not validate against our published schema")


class InvalidTagError(AwsError):
    """A tag breaks the rules for tags."""

    code = "InvalidTag"
    status = 400


class InvalidCopySourceError(AwsError):
    """The copy source names no bucket and key."""

    code = "InvalidArgument"
    status = 400

    def __init__(self, source: str) -> None:
        super().__init__(
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            ArgumentName="x-amz-copy-source",
            ArgumentValue=source,
        )


class IllegalLocationConstraintError(AwsError):
    """The bucket's region is not this endpoint's."""

    code = "IllegalLocationConstraintException"
    status = 400


class NotImplementedHereError(AwsError):
    """The request asks for something of S3 that is not served here."""

    code = "NotImplemented"
    status = 501


class ContentCollectedError(AwsError):
    """Content waited too long for its commit and was collected; the caller uploads again."""

    code = "InternalError"
    status = 500

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The content of {key!r} was uploaded more than a day before it was committed and has been collected. "
            "Upload it again.",
            Key=key,
        )
